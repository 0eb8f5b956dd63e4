"""Procrastinate in the fault suite: `python -m benchmarks.peers.procrastinate_faults install | work NAME | produce`.

- Its crash recovery, by its documentation: a periodic task that retries what get_stalled_jobs() finds. Here each
  second, the shortest that cron has, on a queue of its own, for workers silent for 3 s, as our lease, with a heartbeat
  a second.
- A lost database makes a worker stop: whoever runs it starts it again.
- Tasks that are no coroutines run on threads.
- Producers hand it their own psycopg connection (configure(connection=...)), so that a job shares its transaction.
"""

import asyncio
import logging
import os
import sys

import procrastinate
import psycopg

from tests.faults import traffic

from .fault_handlers import AT_ONCE, Handlers

logging.getLogger("procrastinate").setLevel(logging.WARNING)
SILENT = 3.0


def install():
    app = procrastinate.App(connector=procrastinate.SyncPsycopgConnector(conninfo=os.environ["PGQUEUE_DSN"]))
    with app.open():
        app.schema_manager.apply_schema()


async def work(name):
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=os.environ["PGQUEUE_DSN"], max_size=20))
    often = procrastinate.RetryStrategy(max_attempts=200)
    options = {"queue": "faults", "retry": often, "pass_context": True}
    async with Handlers() as handlers, app.open_async():

        @app.task(name="plain", **options)
        async def plain(context, key, seconds):
            await handlers.plain(context.job.id, context.job.attempts + 1, key, seconds)

        @app.task(name="effect", **options)
        async def effect(context, key, seconds):
            await handlers.effect(context.job.id, context.job.attempts + 1, key, seconds)

        @app.task(name="effect_on_thread", **options)
        def effect_on_thread(context, key, seconds):
            handlers.effect_on_thread(context.job.id, context.job.attempts + 1, key, seconds)

        @app.periodic(cron="* * * * * *")
        @app.task(name="retry_stalled", queue="upkeep", queueing_lock="retry_stalled", priority=1)
        async def retry_stalled(timestamp):  # noqa: ARG001
            for job in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=SILENT):
                await app.job_manager.retry_job(job)

        print("worker started", flush=True)
        await app.run_worker_async(
            name=name,
            concurrency=AT_ONCE,
            fetch_job_polling_interval=1.0,
            update_heartbeat_interval=1.0,
            stalled_worker_timeout=SILENT,
        )


def enqueue(connection, jobs):
    with connection.transaction():  # its batch_defer has one task for all
        return [
            app.configure_task(job.task, queue="faults", allow_unknown=True, connection=connection).defer(
                key=job.key, seconds=job.seconds
            )
            for job in jobs
        ]


if __name__ == "__main__":
    match sys.argv[1]:
        case "install":
            install()
        case "work":
            asyncio.run(work(sys.argv[2]))
        case "produce":
            app = procrastinate.App(connector=procrastinate.SyncPsycopgConnector())

            def connect(dsn):
                return psycopg.connect(dsn, autocommit=True)

            traffic.produce(traffic.WayIn(connect, enqueue, (procrastinate.exceptions.ProcrastinateException,)))
