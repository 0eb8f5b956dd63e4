"""Plays one fault from the first job to the verdict."""

from dataclasses import dataclass
from time import monotonic

import psycopg

from .checker import Allowed, Violation, Wrong, check
from .fault import Fault
from .observed import Observed, observe
from .recovery import slowest_recovery
from .stage import LEASE, stage

RATE = 70.0
"""Transactions of all producers a second; some add several jobs. One worker alone can do it, so that a job which was
interrupted does not wait behind others."""

WORKERS = 2

STILL = LEASE * 4
"""Seconds without a move after which what is left will not move any more."""


@dataclass(frozen=True, slots=True)
class Played:
    fault: Fault
    observed: Observed
    violations: list[Violation]
    injections: int
    restarts: int
    seconds_to_recover: float
    exit_codes: list[int]
    seconds: float

    @property
    def is_right(self) -> bool:
        may_forget = Allowed.AMNESIA in self.fault.allowed
        bad = [violation for violation in self.violations if not (violation.is_forgotten and may_forget)]
        return not bad and not any(self.exit_codes)

    def count(self, wrong: Wrong) -> int:
        return len({violation.key for violation in self.violations if violation.wrong is wrong})

    @property
    def attempts_per_job(self) -> float:
        return len(self.observed.attempts) / max(len(self.observed.jobs), 1)


def play(fault: Fault, version: str, seed: int, jobs: int, injections: int) -> Played:
    """Until there were so many injections and so many jobs, and all is worked off."""
    began = monotonic()
    with fault.cluster(version) as cluster, stage(cluster, seed) as one, fault.around(one):
        one.may_exit = fault.may_exit
        for number in range(WORKERS):
            one.start_worker(f"w{number + 1}")
        for worker in list(one.workers):
            worker.wait_until_started()
        one.start_producers(2, RATE)
        for _ in range(injections):
            one.wait(one.rng.uniform(*fault.gap))
            one.strike(fault.strike)
        while one.enqueued() < jobs:
            one.wait(0.2)
        one.stop_producers()
        one.wait_until_empty(STILL)
        exit_codes = one.stop_workers()
        with psycopg.connect(one.dsn) as connection:
            observed = observe(connection, one.journal)
        return Played(
            fault,
            observed,
            check(observed, fault.allowed),
            len(one.strikes),
            one.restarts,
            slowest_recovery(observed, one.strikes),
            exit_codes,
            monotonic() - began,
        )
