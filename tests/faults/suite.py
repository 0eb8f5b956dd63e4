"""Plays one fault from the first job to the verdict."""

from dataclasses import dataclass
from time import monotonic

import psycopg

from .checker import Allowed, Violation, Wrong, check, count
from .contestant import Contestant
from .contestants import PGQUEUE
from .fault import Fault
from .observed import Observed
from .recovery import Strike, slowest_recovery
from .stage import stage

RATE = 70.0
"""Transactions of all producers a second; some add several jobs. One worker alone can do it, so that a job which was
interrupted does not wait behind others."""

WORKERS = 2

PATIENCE = 60.0
"""Seconds that a worker has to find back to work after the last strike."""


@dataclass(frozen=True, slots=True)
class Played:
    fault: Fault
    observed: Observed
    violations: list[Violation]
    restarts: int
    strikes: list[Strike]
    exit_codes: list[int]
    seconds: float
    stuck: int
    """Workers that were alive after the last strike, and did not find back to work."""

    @property
    def is_right(self) -> bool:
        may_forget = Allowed.AMNESIA in self.fault.allowed
        bad = [violation for violation in self.violations if not (violation.is_forgotten and may_forget)]
        return not bad and not any(self.exit_codes) and not self.stuck

    @property
    def injections(self) -> int:
        return len(self.strikes)

    @property
    def seconds_to_recover(self) -> float:
        return slowest_recovery(self.observed, self.strikes)

    def count(self, wrong: Wrong) -> int:
        return count(self.violations)[wrong]

    @property
    def attempts_per_job(self) -> float:
        return len(self.observed.attempts) / max(len(self.observed.jobs), 1)


def play(
    fault: Fault,
    version: str,
    seed: int,
    jobs: int,
    injections: int,
    contestant: Contestant = PGQUEUE,
    rate: float = RATE,
) -> Played:
    """Until there were so many injections and so many jobs, and all is worked off."""
    began = monotonic()
    with fault.cluster(version) as cluster, stage(contestant, cluster, seed) as one, fault.around(one):
        one.may_exit = fault.may_exit
        for number in range(WORKERS):
            one.start_worker(f"w{number + 1}")
        for worker in list(one.workers):
            worker.wait_until_started()
        one.start_producers(2, rate)
        for _ in range(injections):
            one.wait(one.rng.uniform(*fault.gap))
            one.strike(fault.strike)
        while one.enqueued() < jobs:
            one.wait(0.2)
        stuck = one.count_stuck(PATIENCE)
        one.stop_producers()
        one.wait_until_empty()
        exit_codes = one.stop_workers()
        with psycopg.connect(one.dsn) as connection:
            observed = contestant.observe(connection, one.journal)
        return Played(
            fault,
            observed,
            check(observed, fault.allowed),
            one.restarts,
            one.strikes,
            exit_codes,
            monotonic() - began,
            stuck,
        )
