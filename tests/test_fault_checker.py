"""The checker of the fault suite must see each thing that it is there to see."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from .faults.checker import Allowed, Wrong, check
from .faults.observed import Attempt, Effect, Observed, Promise, Run, StoredJob
from .faults.recovery import Strike, slowest_recovery, slowest_rerun

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def attempt(
    number: int = 1, outcome: str = "succeeded", *, begins: float = 0, lasts: float = 1, job: int = 1
) -> Attempt:
    began = NOON + timedelta(seconds=begins)
    return Attempt(job, number, outcome, began, began + timedelta(seconds=lasts))


def run(number: int = 1, *, begins: float = 0, lasts: float | None = 1, key: str = "a") -> Run:
    return Run(key, number, 7, begins, None if lasts is None else begins + lasts)


EFFECT = Effect("a", 1)
JOB = StoredJob(id=1, key="a", task="effect", state="succeeded", attempt=1, failures=0, losses=0)
SOUND = Observed(
    promises={"a": Promise.ACKNOWLEDGED, "b": Promise.ROLLED_BACK, "c": Promise.UNKNOWN},
    jobs=[JOB],
    attempts=[attempt()],
    runs=[run()],
    effects=[EFFECT],
    orders=frozenset("a"),
    ordered=frozenset("ab"),
)
TWICE = replace(JOB, attempt=2)
AGAIN = replace(
    SOUND,
    jobs=[TWICE],
    attempts=[attempt(outcome="lost"), attempt(2, begins=1)],
    runs=[run(), run(2, begins=1)],
    effects=[Effect("a", 2)],
)


def test_a_sound_history_has_no_violations() -> None:
    assert check(SOUND) == []


def test_a_job_that_was_lost_once_and_ran_again_is_sound() -> None:
    assert check(replace(AGAIN, runs=[run(lasts=None), run(2, begins=1)])) == []


@pytest.mark.parametrize(
    ("wrong", "seen"),
    [
        pytest.param(Wrong.LOST, {"jobs": [], "attempts": [], "runs": [], "effects": []}, id="lost job"),
        pytest.param(Wrong.LOST, {"jobs": [replace(JOB, state="ready")], "effects": []}, id="unfinished job"),
        pytest.param(Wrong.LOST, {"effects": []}, id="lost effect"),
        pytest.param(Wrong.UNEXPECTED, {"effects": [EFFECT, Effect("c", 1)]}, id="an effect without a job"),
        pytest.param(Wrong.LOST, {"attempts": []}, id="lost attempt"),
        pytest.param(Wrong.LOST, {"attempts": [attempt(outcome="failed")]}, id="succeeded in no attempt"),
        pytest.param(Wrong.LOST, {"orders": frozenset("ac")}, id="order without job"),
        pytest.param(Wrong.LOST, {"runs": [run(), run(key="c")]}, id="job that has run and is nowhere"),
        pytest.param(Wrong.UNEXPECTED, {"orders": frozenset()}, id="job without order"),
        pytest.param(Wrong.UNEXPECTED, {"runs": [run(), run(key="b")]}, id="rolled back job runs"),
        pytest.param(Wrong.UNEXPECTED, {"effects": [EFFECT, Effect("b", 1)]}, id="rolled back job has an effect"),
        pytest.param(Wrong.UNEXPECTED, {"runs": [run(), run(key="x")]}, id="job that nobody enqueued"),
        pytest.param(Wrong.UNEXPECTED, {"attempts": [attempt(), attempt(2, "lost", begins=1)]}, id="attempt too many"),
        pytest.param(
            Wrong.UNEXPECTED,
            {"jobs": [replace(JOB, state="buried", max_failures=25, max_losses=3)], "effects": []},
            id="buried without need",
        ),
        pytest.param(Wrong.DOUBLED, {"effects": [EFFECT, EFFECT]}, id="doubled effect"),
        pytest.param(
            Wrong.DOUBLED,
            {"jobs": [replace(JOB, state="buried", failures=1, max_failures=0, max_losses=3)]},
            id="effect of a buried job",
        ),
        pytest.param(
            Wrong.DOUBLED,
            {"jobs": [JOB, replace(JOB, id=2)], "attempts": [attempt(), attempt(job=2)]},
            id="doubled job",
        ),
        pytest.param(Wrong.DOUBLED, {"attempts": [attempt(), attempt(outcome="lost")]}, id="two outcomes"),
        pytest.param(Wrong.DOUBLED, {"runs": [run(), run(begins=2)]}, id="an attempt that runs twice"),
    ],
)
def test_the_checker_sees(wrong: Wrong, seen: dict[str, object]) -> None:
    assert {violation.wrong for violation in check(replace(SOUND, **seen))} == {wrong}


@pytest.mark.parametrize(
    ("wrong", "seen"),
    [
        pytest.param(Wrong.LOST, {"attempts": [attempt(2)]}, id="gap in the attempts"),
        pytest.param(Wrong.DOUBLED, {"effects": [Effect("a", 1)]}, id="effect of the lost attempt"),
        pytest.param(Wrong.DOUBLED, {"attempts": [attempt(), attempt(2, begins=1)]}, id="stale completion"),
        pytest.param(
            Wrong.DOUBLED, {"attempts": [attempt(outcome="lost"), attempt(2, begins=0.9)]}, id="two leases at once"
        ),
        pytest.param(Wrong.DOUBLED, {"runs": [run(), run(2, begins=0.9)]}, id="two handlers at once"),
    ],
)
def test_the_checker_sees_in_a_job_that_ran_again(wrong: Wrong, seen: dict[str, object]) -> None:
    [violation] = check(replace(AGAIN, **seen))
    assert violation.wrong is wrong


def test_a_frozen_process_may_overlap_and_its_lease_may_not() -> None:
    overlap = replace(AGAIN, runs=[run(), run(2, begins=0.9)])
    assert check(overlap, Allowed.OVERLAPS) == []
    ended = [attempt(outcome="lost"), attempt(2, begins=0.9)]
    assert check(replace(overlap, attempts=ended), Allowed.OVERLAPS) != []


@pytest.mark.parametrize(
    ("attempts", "seconds"),
    [
        pytest.param([attempt(outcome="lost", lasts=7), attempt(2, begins=7)], 4, id="killed, and ready again"),
        pytest.param([attempt(lasts=6)], 3, id="goes on and ends"),
        pytest.param([attempt(lasts=2)], 0, id="ends in the strike"),
        pytest.param([attempt(begins=4, lasts=9)], 0, id="begins after it"),
    ],
)
def test_recovery_is_counted_from_the_end_of_the_strike(attempts: list[Attempt], seconds: float) -> None:
    strike = Strike(NOON + timedelta(seconds=1), NOON + timedelta(seconds=3), since=0.0, until=0.0)
    assert slowest_recovery(replace(SOUND, attempts=attempts), [strike]) == seconds


def test_an_attempt_of_another_worker_was_not_hit() -> None:
    lost = replace(attempt(1, "lost", lasts=9), worker="w1")
    strikes = [
        Strike(NOON, NOON, 0.0, 0.0, "w2"),
        Strike(NOON + timedelta(seconds=6), NOON + timedelta(seconds=7), 0.0, 0.0, "w1"),
    ]
    assert slowest_recovery(replace(SOUND, attempts=[lost]), strikes) == 2.0


@pytest.mark.parametrize(
    ("runs", "seconds"),
    [
        pytest.param([Run("a", 1, 1, 0.0, 5.0)], 2.0, id="goes on"),
        pytest.param([Run("a", 1, 1, 0.0, None), Run("a", 2, 1, 7.0, 9.0)], 4.0, id="runs again"),
        pytest.param([Run("a", 1, 1, 4.0, 9.0)], 0.0, id="begins after it"),
    ],
)
def test_where_there_are_no_attempts_recovery_is_counted_to_the_next_run(runs: list[Run], seconds: float) -> None:
    strike = Strike(NOON, NOON, since=1.0, until=3.0)
    assert slowest_rerun(replace(SOUND, runs=runs), [strike]) == seconds


PLAIN = replace(JOB, task="plain")


@pytest.mark.parametrize(
    ("wrong", "seen"),
    [
        pytest.param(Wrong.DOUBLED, {"runs": [replace(run(), ended_at=NOON + timedelta(seconds=2))]}, id="too early"),
        pytest.param(Wrong.DOUBLED, {"runs": [run(lasts=None)]}, id="by another"),
        pytest.param(Wrong.UNEXPECTED, {"jobs": [replace(PLAIN, task="poison")]}, id="a killer that succeeded"),
        pytest.param(Wrong.UNEXPECTED, {"jobs": [replace(PLAIN, task="block", losses=1)]}, id="a lease that was lost"),
    ],
)
def test_the_checker_sees_in_a_job_without_an_effect(wrong: Wrong, seen: dict[str, object]) -> None:
    sound = replace(SOUND, jobs=[PLAIN], effects=[], runs=[replace(run(), ended_at=NOON + timedelta(seconds=0.5))])
    assert check(sound) == []
    [violation] = check(replace(sound, **seen))
    assert violation.wrong is wrong


def test_a_clock_that_jumped_excuses_times_and_nothing_else() -> None:
    early = replace(SOUND, jobs=[PLAIN], effects=[], runs=[replace(run(), ended_at=NOON + timedelta(hours=1))])
    assert check(early, Allowed.CLOCK) == check(early, Allowed.WORKER_CLOCK) == []
    assert check(replace(early, jobs=[]), Allowed.CLOCK) != []


def test_a_server_that_forgets_may_lose_jobs_and_nothing_else() -> None:
    """Not a part of what was committed together, and not what it still has."""
    [lost] = check(replace(SOUND, jobs=[], attempts=[], effects=[], runs=[], orders=frozenset()), Allowed.AMNESIA)
    assert lost.is_forgotten
    for torn in ({"orders": frozenset()}, {"effects": []}, {"jobs": [replace(JOB, state="ready")], "effects": []}):
        assert not any(violation.is_forgotten for violation in check(replace(SOUND, **torn), Allowed.AMNESIA))
        assert check(replace(SOUND, **torn), Allowed.AMNESIA) != []
