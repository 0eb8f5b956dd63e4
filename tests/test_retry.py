import random
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from pgqueue import InvalidInput, calls, retry
from pgqueue.jobs import JobError

from .builders import a_job
from .conftest import Database


def seconds(policy: retry.Backoff, retries: int) -> list[float]:
    return [policy(n).total_seconds() for n in range(retries)]


def test_sidekiq_without_jitter_has_the_golden_delays() -> None:
    delays = seconds(retry.sidekiq(jitter=False), 25)

    assert delays[:6] == [15, 16, 31, 96, 271, 640]
    assert sum(delays) == 1_763_395


@pytest.mark.parametrize("n", [0, 1, 4, 24])
def test_the_jitter_of_sidekiq_adds_up_to_ten_seconds_times_the_retries_so_far(n: int) -> None:
    random.seed(n)
    drawn = [retry.sidekiq()(n).total_seconds() for _ in range(500)]

    assert min(drawn) >= n**4 + 15
    assert max(drawn) <= n**4 + 15 + 10 * (n + 1)
    assert max(drawn) - min(drawn) > 9 * (n + 1)


def test_exponential_doubles_up_to_its_cap() -> None:
    policy = retry.exponential(base=timedelta(seconds=1), cap=timedelta(seconds=600), jitter=False)

    assert seconds(policy, 12) == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]


@pytest.mark.parametrize("n", [0, 3, 20])
def test_the_full_jitter_of_exponential_spreads_from_nothing_to_the_whole_delay(n: int) -> None:
    random.seed(n)
    longest = retry.exponential(jitter=False)(n)
    drawn = [retry.exponential()(n) for _ in range(500)]

    assert timedelta() <= min(drawn) < longest * 0.1
    assert longest * 0.9 < max(drawn) <= longest


def test_linear_grows_by_a_step_up_to_its_cap() -> None:
    policy = retry.linear(step=timedelta(seconds=15), cap=timedelta(seconds=50))

    assert seconds(policy, 5) == [15, 30, 45, 50, 50]


def test_the_last_delay_of_a_list_repeats() -> None:
    assert seconds(retry.policy([10, 30, 60]), 5) == [10, 30, 60, 60, 60]
    assert seconds(retry.policy([timedelta(minutes=1), 0.5]), 3) == [60, 0.5, 0.5]
    assert seconds(retry.policy([0]), 2) == [0, 0]


@pytest.mark.parametrize("name", ["sidekiq", "exponential", "linear"])
def test_a_policy_is_found_by_its_name(name: str) -> None:
    assert timedelta() <= retry.policy(name)(0) <= timedelta(seconds=25)


def test_a_function_is_a_policy_as_it_is() -> None:
    def hourly(_: int) -> timedelta:
        return timedelta(hours=1)

    assert retry.policy(hourly) is hourly


@pytest.mark.parametrize("name", ["sidekiq", "exponential", "linear"])
def test_no_retry_number_overflows(name: str) -> None:
    delays = [retry.policy(name)(n) for n in (100, 10_000, 2**31 - 1)]

    assert all(delay <= timedelta(days=365) for delay in delays)


def test_policies_without_jitter_never_shorten() -> None:
    for policy in (retry.sidekiq(jitter=False), retry.exponential(jitter=False), retry.linear()):
        assert all(earlier <= later for earlier, later in pairwise(seconds(policy, 200)))


@pytest.mark.parametrize(
    ("choice", "named"),
    [
        ("fibonacci", '"fibonacci" is unknown: choose sidekiq, exponential, linear'),
        ("", '"" is unknown'),
        ([], "the list of delays is empty: give at least one"),
        ([10, -1], "-1 day, 23:59:59 is out of bounds: give delays from 0"),
        ([1e9], "is out of bounds: give delays from 0 to 365 days"),
        ([1e30], "the delay 1e+30 is no duration"),
        ([float("nan")], "the delay nan is no duration"),
        ([10, "soon"], "the delay 'soon' is no duration: give seconds, or a timedelta"),
        (30, "30 is no list of delays: give one, such as"),
        (timedelta(seconds=30), "is no list of delays: give one, such as"),
    ],
)
def test_a_bad_policy_is_named_and_cured(choice: Any, named: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        retry.policy(choice)

    assert named in str(raised.value)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: retry.exponential(base=timedelta()), "base is 0:00:00: give a duration above 0"),
        (lambda: retry.exponential(cap=timedelta(seconds=-1)), "cap is -1 day, 23:59:59: give a duration above 0"),
        (lambda: retry.linear(step=timedelta()), "step is 0:00:00: give a duration above 0"),
        (lambda: retry.linear(cap=timedelta()), "cap is 0:00:00: give a duration above 0"),
    ],
)
def test_a_policy_refuses_durations_that_are_none(make: Any, named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        make()


@pytest.mark.parametrize("retry_in", [timedelta(), timedelta(microseconds=1), timedelta(seconds=96), timedelta(days=9)])
def test_a_failed_job_runs_again_after_the_delay_its_worker_names(db: Database, retry_in: timedelta) -> None:
    job = a_job(db, state="running")

    before = db.value("select pgqueue.clock()")
    assert db.run(calls.fail(job.id, job.attempt, JobError("ValueError", "no"), retry_in)) == "ready"
    after = db.value("select pgqueue.clock()")

    assert before + retry_in <= db.run(calls.job(job.id)).run_at <= after + retry_in


@pytest.mark.parametrize("failures", [0, 1, 2, 24])
def test_without_a_delay_the_database_uses_the_same_formula(db: Database, failures: int) -> None:
    job = a_job(db, state="running")
    db.execute("update pgqueue.job set failures = %s where id = %s", failures, job.id)

    before = db.value("select pgqueue.clock()")
    db.run(calls.fail(job.id, job.attempt, JobError("ValueError", "no")))
    after = db.value("select pgqueue.clock()")

    shortest = retry.sidekiq(jitter=False)(failures)
    longest = shortest + timedelta(seconds=10 * (failures + 1))
    assert before + shortest <= db.run(calls.job(job.id)).run_at <= after + longest
