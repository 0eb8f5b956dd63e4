"""A task that counts, for whoever wants to know from outside how far a worker has come without asking the database."""

import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import pack_into, unpack_from
from tempfile import NamedTemporaryFile

from pgqueue import Tasks

QUEUE = "counted"
FILE = "PGQUEUE_BENCH_COUNTER"

tasks = Tasks()
_page = mmap.mmap(os.open(os.environ[FILE], os.O_RDWR), 8) if FILE in os.environ else None
_count = 0


@tasks.task(queue=QUEUE)
async def counted() -> None:
    global _count
    _count += 1
    assert _page is not None
    pack_into("q", _page, 0, _count)


@contextmanager
def counter() -> Iterator[Callable[[], int]]:
    """What the one worker process that is started in the block has done."""
    with NamedTemporaryFile() as file:
        file.write(bytes(8))
        file.flush()
        os.environ[FILE] = file.name
        try:
            yield lambda: int(unpack_from("q", Path(file.name).read_bytes())[0])
        finally:
            del os.environ[FILE]
