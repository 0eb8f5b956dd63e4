"""What the environment says, read once."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs


@dataclass(frozen=True, slots=True)
class Settings:
    """PGQUEUE_DSN, PGQUEUE_LISTEN_DSN, PGQUEUE_DATA (folder of the embedded database), PGQUEUE_LOG (text or json)."""

    dsn: str | None
    listen_dsn: str | None
    data_folder: Path
    log_format: str
    libpq_speaks: bool

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        return cls(
            dsn=environment.get("PGQUEUE_DSN") or None,
            listen_dsn=environment.get("PGQUEUE_LISTEN_DSN") or None,
            data_folder=Path(environment.get("PGQUEUE_DATA") or platformdirs.user_data_path("pgqueue")),
            log_format=environment.get("PGQUEUE_LOG") or "text",
            libpq_speaks=any(environment.get(name) for name in ("PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE")),
        )
