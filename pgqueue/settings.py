"""What the environment says, read once."""

import os
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
    def from_environment(cls) -> "Settings":
        return cls(
            dsn=os.environ.get("PGQUEUE_DSN") or None,
            listen_dsn=os.environ.get("PGQUEUE_LISTEN_DSN") or None,
            data_folder=Path(os.environ.get("PGQUEUE_DATA") or platformdirs.user_data_path("pgqueue")),
            log_format=os.environ.get("PGQUEUE_LOG") or "text",
            libpq_speaks=any(os.environ.get(name) for name in ("PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE")),
        )
