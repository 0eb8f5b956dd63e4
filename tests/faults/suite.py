"""Plays one fault from the first job to the verdict."""

from dataclasses import dataclass
from time import sleep

import psycopg

from .checker import Violation, Wrong, check
from .faults import Fault
from .observed import Observed, observe
from .recovery import slowest_recovery
from .stage import LEASE, stage

RATE = 120.0
"""Transactions of all producers a second; some add several jobs."""

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

    @property
    def is_right(self) -> bool:
        return not self.violations and not any(self.exit_codes) and (self.fault.may_replace or not self.restarts)

    def count(self, wrong: Wrong) -> int:
        return len({violation.key for violation in self.violations if violation.wrong is wrong})

    @property
    def attempts_per_job(self) -> float:
        return len(self.observed.attempts) / max(len(self.observed.jobs), 1)


def play(fault: Fault, version: str, seed: int, jobs: int, injections: int) -> Played:
    """Until there were so many injections and so many jobs, and all is worked off."""
    with stage(version, seed, fault.settings) as set, fault.around(set):
        for number in range(fault.workers):
            set.start_worker(f"w{number + 1}")
        for worker in list(set.workers):
            worker.wait_until_started()
        set.start_producers(2, RATE)
        for _ in range(injections):
            sleep(set.rng.uniform(*fault.gap))
            set.strike(fault.strike)
        while set.enqueued() < jobs:
            sleep(0.2)
        set.stop_producers()
        set.wait_until_empty(STILL)
        exit_codes = set.stop_workers()
        with psycopg.connect(set.dsn) as connection:
            observed = observe(connection, set.journal)
        return Played(
            fault,
            observed,
            check(observed, fault.may_freeze),
            len(set.strikes),
            set.restarts,
            slowest_recovery(observed, set.strikes),
            exit_codes,
        )
