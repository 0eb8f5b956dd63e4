"""The task of the demo, in a module of its own because its worker processes import it."""

import hashlib
from pathlib import Path

from .running import Bury, Job
from .tasks import Tasks

tasks = Tasks()


@tasks.task(name="pgqueue_demo.measure", queue="pgqueue_demo", max_failures=3)
def measure(job: Job, path: str) -> None:
    """Hashes and measures one file; what it writes commits together with the completion of its job."""
    content = Path(path).read_bytes()
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise Bury(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from None
    with job.transaction() as connection:
        connection.execute(
            "insert into pgqueue_demo.result (path, sha256, bytes, lines, words, attempt)"
            " values (%s, %s, %s, %s, %s, %s)",
            [path, hashlib.sha256(content).hexdigest(), len(content), text.count("\n"), len(text.split()), job.attempt],
        )
