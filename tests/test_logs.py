import io
import json
import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import pytest

from pgqueue import InvalidInput, logs


@pytest.fixture
def logged() -> Iterator[Callable[[str], str]]:
    """Sets up a format, logs one hostile record, and gives what was written."""
    logger = logging.getLogger("pgqueue")
    before = (logger.handlers, logger.level, logger.propagate)

    def log(log_format: str) -> str:
        stream = io.StringIO()
        logs.configure(log_format, "info", stream)
        logging.getLogger("pgqueue.worker").info("job failed", extra={"job": 7, "error": 'a "b"\nlevel=info'})
        logging.getLogger("pgqueue.worker").debug("too fine")
        return stream.getvalue()

    yield log
    logger.handlers, logger.level, logger.propagate = before


def test_a_text_log_has_a_line_a_record_that_no_value_can_forge(logged: Callable[[str], str]) -> None:
    (line,) = logged("text").splitlines()

    assert line.endswith(r'level=info logger=pgqueue.worker event="job failed" job=7 error="a \"b\"\nlevel=info"')


def test_a_json_log_has_an_object_a_record(logged: Callable[[str], str]) -> None:
    record = json.loads(logged("json"))

    assert (record["level"], record["event"], record["job"]) == ("info", "job failed", 7)
    assert datetime.fromisoformat(record["time"]).utcoffset() == timedelta()


def test_a_log_format_that_is_none_names_the_variable() -> None:
    with pytest.raises(InvalidInput, match="PGQUEUE_LOG"):
        logs.configure("xml")
