"""The only place that composes a worker process."""

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from time import monotonic

import psycopg

from .. import calls, database, schema
from ..errors import PgqueueError
from ..listener import Listener
from ..tasks import Tasks
from .deadline import Deadline
from .dispatcher import Dispatcher
from .leases import LeaseKeeper
from .lineup import Lineup
from .loading import load
from .maintenance import Maintenance
from .options import Options
from .patience import Patience
from .pools import Pools
from .presence import Presence
from .service import Service
from .supervisor import RETIRED, supervise

log = logging.getLogger("pgqueue.worker")

END_AFTER_GRACE = timedelta(seconds=20)
"""Beyond the grace: for handlers that are left behind after 5 of them, and a database that does not answer."""

LEFT_BEHIND_END_WITHIN = timedelta(seconds=2)

MAINTENANCE_PATIENCE = timedelta(minutes=10)
"""To drop a large partition takes its time."""


def run(dsn: str, options: Options, supervisor: int | None = None) -> int:
    """Runs until SIGTERM or SIGINT; returns the exit code. Raises PgqueueError where it cannot start.

    supervisor is the process id of the parent without which this process is to stop.
    """
    tasks = load(options.target)
    with database.connect(dsn) as connection:
        schema.check(database.run(connection, calls.schema_version()))
        is_pooled = database.is_pooled(connection)
    if options.processes > 1:
        return supervise(dsn, options)
    # What is imported by now stays: to look at it in every collection would cost a tenth of the time.
    gc.collect()
    gc.freeze()
    deadline = Deadline()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        code = runner.run(_run(dsn, options, tasks, is_pooled, supervisor, deadline))
        # What is left now are handlers that were left behind; the runner would wait for them for as long as they like.
        deadline.set(LEFT_BEHIND_END_WITHIN, code)
    deadline.clear()
    return code


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def _run(
    dsn: str, options: Options, tasks: Tasks, is_pooled: bool, supervisor: int | None, deadline: Deadline
) -> int:
    presence = Presence(options.name, options.queues)
    with database.connect(dsn) as connection:
        presence.register(connection)
    pools = Pools(dsn, options.concurrency, prepare=not is_pooled, lease=options.lease)
    dispatcher = Dispatcher(dsn, options, tasks, pools.connections, pools.timeline)
    presence.on_eviction, presence.is_stopping = dispatcher.evict_soon, lambda: dispatcher.is_stopping
    keeper, maintenance = dispatcher.keeper, Maintenance()
    keeping = Service("lease keeper", dsn, keeper.interval, keeper.tick, options.lease / 3)
    being_here = Service("presence", dsn, presence.interval, presence.tick, options.lease)
    dispatcher.on_loss = being_here.hurry
    services = [
        keeping,
        being_here,
        Service("maintenance", dsn, maintenance.interval, maintenance.tick, MAINTENANCE_PATIENCE),
    ]
    patiences = [dispatcher.patience, pools.patience, *(service.patience for service in services)]
    background = [asyncio.create_task(_watch_answers(keeper, patiences))]
    if supervisor is not None:
        background.append(asyncio.create_task(_watch(supervisor, dispatcher)))
    if options.listen:

        def look_at(id: int) -> None:
            # Any role may notify, and late: only the job's row says whether it is to be cancelled.
            if dispatcher.holds(id):
                keeping.hurry()

        listener = Listener(options.listen_dsn or dsn, dispatcher.wake, look_at)
        background.append(asyncio.create_task(listener.run()))
    for service in services:
        service.start()
    _stop_on_signals(dispatcher, options.grace, deadline)
    log.info(
        "worker started",
        extra={"worker": options.name, "queues": ",".join(options.queues), "tasks": len(tasks), "pid": os.getpid()},
    )
    lineup = Lineup(options.queues)
    for task in tasks:
        if not lineup.serves(task.queue):
            log.warning(
                f"jobs of {task.name} go to queue {task.queue}, which this worker does not serve: add it to --queues,"
                " or start another worker for it"
            )
    try:
        await dispatcher.run()
    finally:
        for watcher in background:
            watcher.cancel()
        for service in services:
            service.stop()
        await pools.close()
        with suppress(PgqueueError, psycopg.Error), database.connect(dsn) as connection:
            if dispatcher.retired is None:
                presence.deregister(connection)
            else:
                presence.retire(connection, dispatcher.retired)
    log.info("worker stopped", extra={"worker": options.name})
    return 0 if dispatcher.retired is None else RETIRED


def _stop_on_signals(dispatcher: Dispatcher, grace: timedelta, deadline: Deadline) -> None:
    """The first signal lets running jobs finish for as long as grace, the second gives them back at once."""
    loop = asyncio.get_running_loop()
    signals = 0

    def on_signal(name: str) -> None:
        nonlocal signals
        signals += 1
        if signals == 1:
            log.info(f"{name}: finishing what runs, for at most {grace}")
            dispatcher.stop()
            deadline.set(grace + END_AFTER_GRACE, 1)
        else:
            log.info(f"{name} again: giving back what runs")
            dispatcher.stop_at_once()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number.name)


async def _watch_answers(keeper: LeaseKeeper, patiences: Sequence[Patience]) -> None:
    """What cannot be known to be ours any more is stopped in time, though the lease keeper hangs."""
    interval = keeper.interval.total_seconds()
    while True:
        slept_at = monotonic()
        await asyncio.sleep(interval)
        keeper.give_up_expired()
        # Where a handler has blocked this loop, answers may have come that are not read yet.
        if monotonic() - slept_at < 2 * interval:
            for patience in patiences:
                patience.cut_if_over()


async def _watch(supervisor: int, dispatcher: Dispatcher) -> None:
    """A worker process whose supervisor is gone stops, so that none is left that nobody looks after."""
    while os.getppid() == supervisor:  # noqa: ASYNC110, no event tells of it
        await asyncio.sleep(0.5)
    log.warning("the supervisor is gone, stopping")
    dispatcher.stop()
