"""Sets up logging for our own processes: a line of key=value text or of JSON for each record, on stderr.

An application that runs a worker inside itself sets up logging as it likes; our loggers are all below "pgqueue".
"""

import json
import logging
import re
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TextIO

from .errors import InvalidInput

FORMATS = ("text", "json")


class Level(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


# What every record has; the rest are the fields that the caller gave as extra=.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_PLAIN = re.compile(r"[^\s\"=\x00-\x1f\x7f]+")


def configure(log_format: str = "text", level: str = "info", stream: TextIO | None = None) -> None:
    """Replaces the handlers of the logger "pgqueue". Call it once in every process. Raises InvalidInput."""
    if log_format not in FORMATS:
        raise InvalidInput(f'the log format is "{log_format}": set PGQUEUE_LOG to text or json')
    if level not in [*Level]:
        raise InvalidInput(f'the log level is "{level}": choose from {", ".join(Level)}')
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(JsonLines() if log_format == "json" else KeyValues())
    logger = logging.getLogger("pgqueue")
    logger.handlers = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False


class KeyValues(logging.Formatter):
    """`time=... level=info logger=pgqueue.worker event="worker started" queues=default`, tracebacks below."""

    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        traceback = fields.pop("traceback", None)
        line = " ".join(f"{name}={_value(value)}" for name, value in fields.items())
        return line if traceback is None else f"{line}\n{traceback}"


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(_fields(record), default=str)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "event": record.getMessage(),
    }
    fields |= {name: value for name, value in vars(record).items() if name not in _OWN}
    if record.exc_info:
        fields["traceback"] = logging.Formatter().formatException(record.exc_info)
    return fields


def _value(value: object) -> str:
    """Quoted as JSON where it has to be, so that no value, however hostile, can forge a line or a field."""
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
