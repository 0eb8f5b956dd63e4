"""The command line. A command reads options, makes one call, prints."""

from .app import app
from .enqueueing import enqueue, result
from .granting import grant, revoke
from .operating import bury, cancel, evict, kick, pause, purge, resume
from .reading import attempts, job, jobs, queues, workers
from .running import bench, demo, dev, worker
from .setting_up import doctor, migrate

__all__ = ["app", "main"]

# In the order in which --help lists them.
for _command in (
    *(migrate, worker, enqueue, result),
    *(jobs, job, attempts, queues, workers),
    *(bury, kick, cancel, pause, resume, purge, evict),
    *(grant, revoke, doctor, bench, demo, dev),
):
    app.command()(_command)


def main() -> None:
    app(prog_name="pgqueue")
