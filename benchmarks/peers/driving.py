"""What the Python drivers share: the arguments, worker processes that count in shared memory, and the works.

A driver hands `main` a peer (how to install, enqueue and look) and `serve` (how to run one worker). Workers are
spawned as processes of their own and wait at a barrier, so that imports and the filling of the queue are never timed.
"""

import argparse
import json
import multiprocessing
import os
import random
import sys
import time

WARM_UP = 20  # jobs of `latency` that do not count
BULK = 5000  # jobs that `held` keeps waiting, and enqueues at a time

spawn = multiprocessing.get_context("spawn")


class Tally:
    """Counters shared with the workers; each worker writes in its own slot, so that no job waits for a lock."""

    def __init__(self, processes, jobs):
        self.first = spawn.RawArray("d", processes)
        self.done = spawn.RawArray("q", processes)
        self.waited = spawn.RawArray("d", jobs)  # seconds from enqueue to handler; 0 is not yet arrived

    def started(self, slot):
        """A handler that does nothing else calls this."""
        if not self.done[slot]:
            self.first[slot] = time.time()
        self.done[slot] += 1

    def arrived(self, number, enqueued_at, now):
        self.waited[number] = now - enqueued_at

    def total(self):
        return sum(self.done)

    def first_start(self):
        return min(moment for moment in self.first if moment)


class Workers:
    """Worker processes, ready and waiting for go()."""

    def __init__(self, serve, tally, args):
        self.barrier = spawn.Barrier(args.processes + 1)
        self.all = [
            spawn.Process(target=work, args=(serve, tally, slot, args, self.barrier)) for slot in range(args.processes)
        ]

    def __enter__(self):
        for process in self.all:
            process.start()
        return self

    def go(self):
        self.barrier.wait(timeout=60)

    def pause(self, seconds):
        """Sleep, unless a worker has died: then its count would be waited for in vain."""
        time.sleep(seconds)
        if any(process.exitcode is not None for process in self.all):
            sys.exit("a worker process died")

    def __exit__(self, *_):
        for process in self.all:
            process.terminate()
        for process in self.all:
            process.join(timeout=10)
            process.kill()


def work(serve, tally, slot, args, barrier):
    os.dup2(2, 1)  # whatever a worker prints, stdout stays for the JSON line
    barrier.wait(timeout=600)
    serve(tally, slot, args)


def drain(peer, serve, args):
    tally = Tally(args.processes, 0)
    with Workers(serve, tally, args) as workers:
        peer.install()
        peer.enqueue(peer.jobs(args.jobs))
        peer.settle()
        workers.go()
        while (left := args.jobs - tally.total() if peer.counted else peer.left()) > 0:
            workers.pause(0.01 if peer.counted or left < 500 else 0.1)
        while peer.left():
            workers.pause(0.01)
        ended = time.time()
    return {"jobs_per_second": args.jobs / (ended - tally.first_start())}


def enqueue_many(peer, _, args):
    peer.install()
    peer.enqueue(peer.jobs(100, payload=True))  # connections, prepared statements
    peer.settle()
    jobs = peer.jobs(args.jobs, payload=True)
    began = time.perf_counter()
    peer.enqueue(jobs)
    return {"jobs_per_second": args.jobs / (time.perf_counter() - began)}


def latency(peer, serve, args):
    tally = Tally(args.processes, WARM_UP + args.jobs)
    with Workers(serve, tally, args) as workers:
        peer.install()
        workers.go()
        for number in range(WARM_UP + args.jobs):
            if number == WARM_UP:
                while not all(tally.waited[:WARM_UP]):
                    workers.pause(0.05)
                workers.pause(1)  # the worker is idle again
            time.sleep(random.uniform(0, 0.020))
            peer.enqueue_one(number, time.time())
        deadline = time.time() + 30
        while not all(tally.waited) and time.time() < deadline:
            workers.pause(0.05)
    if not all(tally.waited):
        sys.exit("jobs were lost")
    return {"latencies_ms": [round(waited * 1000, 3) for waited in tally.waited[WARM_UP:]]}


def held(peer, serve, args):
    tally = Tally(args.processes, 0)
    with Workers(serve, tally, args) as workers:
        peer.install()
        bulk, enqueued, curve, began = peer.jobs(BULK), BULK, [], 0.0
        peer.enqueue(bulk)  # the first one before the snapshot, so that the planner has seen a filled table
        peer.settle()
        with peer.snapshot():
            workers.go()
            while not curve or (tally.total() < args.jobs and time.time() < began + args.seconds):
                if enqueued - tally.total() < BULK:
                    peer.enqueue(bulk)
                    enqueued += BULK
                workers.pause(0.005)
                if not curve and tally.total():
                    began = tally.first_start()
                    curve.append([0, 0])
                if curve and time.time() >= began + 0.5 * len(curve):
                    curve.append([round(time.time() - began, 3), tally.total()])
            if curve[-1][1] < tally.total():
                curve.append([round(time.time() - began, 3), tally.total()])
    return {"curve": curve}


def main(make_peer, serve, works, options=()):
    """Parse `WORK JOBS [--processes N] [--seconds S]` and the driver's own options, run, print one line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=[work.__name__.replace("_", "-") for work in works])
    parser.add_argument("jobs", type=int)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60)
    for name, default in options:
        parser.add_argument(name, type=type(default), default=default)
    args = parser.parse_args()
    peer = make_peer(args)
    chosen = next(work for work in works if work.__name__.replace("_", "-") == args.work)
    print(json.dumps(chosen(peer, serve, args) | {"version": peer.version, "settings": peer.settings}))
