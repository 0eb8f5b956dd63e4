"""The parts of a worker that need no database: where to claim, how much, what is held, which module, which thread."""

import threading
from datetime import timedelta
from pathlib import Path
from time import monotonic

import pytest

from pgqueue.errors import WorkerMisconfigured
from pgqueue.jobs import ClaimedJob, JobId
from pgqueue.worker import own_calls
from pgqueue.worker.leases import LeaseKeeper
from pgqueue.worker.loading import load
from pgqueue.worker.options import Options
from pgqueue.worker.own_calls import Mark
from pgqueue.worker.pace import AHEAD_SECONDS, MOST_AHEAD, Pace
from pgqueue.worker.threads import Run, Threads
from pgqueue.worker.watermark import MOST_COST, SWEEP_EVERY, SWEEP_SHARE, Plan, Watermark

from .builders import A_CLAIM, NOON, a_job
from .conftest import Database

ORDER = ["default"]
WHOLE = Plan([], ORDER, is_whole=True)


def a_claim(id: int, priority: int = 0, seconds: int = 0, lease_id: int = 1, queue: str = "default") -> ClaimedJob:
    run_at = NOON + timedelta(seconds=seconds)
    return A_CLAIM._replace(id=JobId(id), queue=queue, priority=priority, run_at=run_at, lease_id=lease_id)


def a_mark(id: int, priority: int = 0, seconds: int = 0, queue: str = "default") -> Mark:
    return Mark(queue, priority, NOON + timedelta(seconds=seconds), id)


def swept_watermark(*jobs: ClaimedJob, at: float = 100.0, cost: float = 0.001) -> Watermark:
    """After a sweep that found these jobs and all there were."""
    watermark = Watermark()
    watermark.swept(at, cost)
    watermark.claimed(jobs, len(jobs) + 1, WHOLE)
    return watermark


def from_marks(*marks: Mark) -> Plan:
    return Plan(list(marks), [])


def test_the_first_claim_sweeps() -> None:
    assert Watermark().plan(100.0, ORDER) == WHOLE


def test_the_next_claim_starts_at_the_last_position_of_each_priority() -> None:
    watermark = swept_watermark(a_claim(1), a_claim(2, seconds=1), a_claim(3, priority=5))

    assert watermark.plan(100.1, ORDER) == from_marks(a_mark(2, seconds=1), a_mark(3, priority=5))


def test_a_busy_worker_sweeps_every_second() -> None:
    watermark = swept_watermark(a_claim(1), at=100.0)

    assert watermark.plan(100.0 + SWEEP_EVERY - 0.01, ORDER) == from_marks(a_mark(1))
    assert watermark.plan(100.0 + SWEEP_EVERY, ORDER) == WHOLE


def test_a_costly_sweep_waits_so_that_it_takes_a_twentieth_of_the_time() -> None:
    watermark = swept_watermark(a_claim(1), at=100.0, cost=0.1)

    assert watermark.plan(100.0 + SWEEP_SHARE * 0.1 - 0.01, ORDER) == from_marks(a_mark(1))
    assert watermark.plan(100.0 + SWEEP_SHARE * 0.1, ORDER) == WHOLE


def test_a_sweep_that_took_long_to_wait_for_something_else_does_not_put_off_the_next_for_ever() -> None:
    watermark = swept_watermark(a_claim(1), at=100.0, cost=60.0)
    longest = SWEEP_SHARE * MOST_COST

    assert watermark.plan(100.0 + longest * 0.9, ORDER) == from_marks(a_mark(1))
    assert watermark.plan(100.0 + longest * 1.1, ORDER) == WHOLE


def test_a_short_claim_is_followed_by_a_sweep_that_is_worth_it() -> None:
    watermark = swept_watermark(a_claim(1), at=100.0, cost=0.01)
    watermark.claimed([], 10, from_marks(a_mark(1)))

    assert not watermark.knows_of_more(100.1)
    assert watermark.knows_of_more(100.2)
    assert watermark.plan(100.2, ORDER) == WHOLE


def test_a_short_sweep_needs_no_other() -> None:
    watermark = swept_watermark(a_claim(1))
    watermark.claimed([], 10, WHOLE)

    assert not watermark.knows_of_more(100.9)
    assert watermark.plan(100.9, ORDER) == from_marks(a_mark(1))


def test_the_first_queue_is_looked_for_if_nothing_is_known_of_it() -> None:
    watermark = swept_watermark(a_claim(1), at=100.0, cost=0.001)

    assert watermark.plan(100.01, ["new", "default"]) == from_marks(a_mark(1))
    assert watermark.plan(100.03, ["new", "default"]) == Plan([], ["new", "default"], is_whole=True)


def test_a_sweep_that_finds_work_below_the_mark_lowers_it() -> None:
    watermark = swept_watermark(a_claim(9, seconds=60))
    watermark.claimed([a_claim(1, seconds=-60)], 1, WHOLE)

    assert watermark.plan(100.1, ORDER) == from_marks(a_mark(1, seconds=-60))


def test_after_a_lost_connection_the_next_claim_sweeps() -> None:
    watermark = swept_watermark(a_claim(1))
    watermark.forget()

    assert watermark.plan(100.0, ORDER) == WHOLE


# A sweep of many queues that has found enough before it came to the last.

QUEUES = ["a", "b", "c", "d"]
WHOLE_OF_MANY = Plan([], QUEUES, is_whole=True)


def full_sweep_to(queue: str, cost: float = 0.001) -> Watermark:
    watermark = Watermark()
    watermark.swept(100.0, cost)
    found = [a_claim(place, queue=name) for place, name in enumerate(QUEUES[: QUEUES.index(queue) + 1])]
    watermark.claimed(found, len(found), WHOLE_OF_MANY)
    return watermark


def test_the_queues_that_a_sweep_did_not_come_to_are_asked_after_the_marks() -> None:
    """At once, whatever the sweep has cost: with many queues a worker would wait at each of them. Of the last that it
    came to, a less urgent priority may be left."""
    watermark = full_sweep_to("b", cost=0.1)

    assert watermark.plan(100.01, QUEUES) == Plan([a_mark(0, queue="a"), a_mark(1, queue="b")], ["b", "c", "d"])


def test_claims_go_on_from_queue_to_queue() -> None:
    watermark = full_sweep_to("a")
    for found, left in (("a", ["a", "b", "c", "d"]), ("b", ["b", "c", "d"]), ("c", ["c", "d"])):
        watermark.claimed([a_claim(9, queue=found)], 1, watermark.plan(100.01, QUEUES))
        assert watermark.plan(100.01, QUEUES).queues == left
    watermark.claimed([a_claim(9, queue="d")], 2, watermark.plan(100.01, QUEUES))
    assert watermark.plan(100.01, QUEUES).queues == []


def test_a_queue_of_which_only_the_marks_were_asked_stays_unfinished() -> None:
    """Below its mark or in another priority there may be work, which a batch that the marks of others fill hides."""
    watermark = full_sweep_to("b")
    watermark.claimed([a_claim(5, queue="d")], 1, Plan([a_mark(0, queue="d")], ["b", "c", "d"]))

    assert watermark.plan(100.01, QUEUES).queues == ["b", "c", "d"]


def test_a_less_urgent_priority_of_the_last_queue_is_looked_for_once_its_marks_have_nothing_left() -> None:
    watermark = full_sweep_to("d", cost=0.1)
    marks = watermark.plan(100.01, QUEUES).marks
    assert watermark.plan(100.01, QUEUES).queues == []
    watermark.claimed([], 10, Plan(marks, []))

    assert watermark.knows_of_more(100.01)
    assert watermark.plan(100.01, QUEUES) == Plan(marks, ["d"])


def test_a_claim_that_came_short_ends_no_queue_that_it_was_not_to_ask() -> None:
    """A sweep was on its way when it was planned, and has found enough in the first queue since."""
    watermark = full_sweep_to("b")
    planned = watermark.plan(100.01, QUEUES)
    watermark.claimed([a_claim(3, queue="a")], 1, WHOLE_OF_MANY)
    watermark.claimed([], 10, planned)

    assert watermark.plan(100.01, QUEUES).queues == ["a"]


def test_patterns_that_match_nothing_any_more_leave_nothing_unfinished() -> None:
    watermark = full_sweep_to("b", cost=0.1)
    watermark.claimed([], 10, Plan([], [], is_whole=True))

    assert not watermark.knows_of_more(100.01)


def test_a_busy_worker_with_many_queues_sweeps_every_second_too() -> None:
    watermark = full_sweep_to("b")

    assert watermark.plan(100.0 + SWEEP_EVERY, QUEUES) == WHOLE_OF_MANY


def test_by_weight_a_queue_that_no_sweep_came_to_is_asked_before_the_marks_when_it_comes_first() -> None:
    watermark = full_sweep_to("a")

    assert watermark.plan(100.01, ["a", "b", "c", "d"]).marks == [a_mark(0, queue="a")]
    assert watermark.plan(100.01, ["c", "a", "d", "b"]) == Plan([], ["c", "a", "d", "b"])


def test_with_patterns_that_match_nothing_yet_a_claim_sweeps() -> None:
    assert Watermark().plan(100.01, []) == Plan([], [], is_whole=True)


def test_before_anything_is_known_a_worker_holds_one_job_a_hand() -> None:
    assert Pace(10).hold_at_most() == 10


def test_short_jobs_come_in_hundreds_and_long_ones_one_by_one() -> None:
    short, long = Pace(10), Pace(10)
    short.record(0.0001)
    long.record(AHEAD_SECONDS * 1.01)

    assert short.hold_at_most() == 10 + MOST_AHEAD
    assert long.hold_at_most() == 10


def test_one_slow_job_stops_holding_ahead_at_once() -> None:
    pace = Pace(10)
    for _ in range(1000):
        pace.record(0.0001)
    pace.record(2.0)

    assert pace.hold_at_most() == 10


class Verdicts(list[tuple[int, int, str]]):
    def __call__(self, id: JobId, attempt: int, verdict: str) -> None:
        self.append((id, attempt, verdict))


def test_a_lease_is_empty_once_its_last_job_is_let_go() -> None:
    keeper = LeaseKeeper(timedelta(seconds=30), Verdicts())
    first, second, other = a_claim(1), a_claim(2), a_claim(3, lease_id=2)
    keeper.hold([first, second, other], since=monotonic())

    assert keeper.emptied_by([first]) == []
    assert keeper.emptied_by([first, second]) == [1]
    assert keeper.let_go([first]) == []
    assert keeper.let_go([second, other]) == [1, 2]
    assert keeper.let_go([other]) == []


def test_a_worker_cut_off_from_the_database_gives_up_before_its_lease_ends() -> None:
    verdicts = Verdicts()
    keeper = LeaseKeeper(timedelta(seconds=30), verdicts)
    keeper.hold([a_claim(1)], since=monotonic() - 28)
    keeper.hold([a_claim(2)], since=monotonic() - 20)

    keeper.give_up_expired()
    keeper.give_up_expired()

    assert verdicts == [(1, 1, "lost")]


def test_a_job_that_was_given_up_is_not_extended_any_more(committed: Database) -> None:
    """Another worker is to have it, and no handler of ours works on it."""
    a_job(committed, queue="work")
    [job] = committed.run(own_calls.sweep(["work"], 1, timedelta(seconds=30), "w"))
    keeper = LeaseKeeper(timedelta(hours=1), Verdicts())
    keeper.hold([job], since=monotonic() - 3500)
    keeper.give_up_expired()

    keeper.tick(committed.connection)

    assert committed.value("select expires_at < clock_timestamp() + interval '1 minute' from pgqueue.lease")


def test_a_claim_leaves_half_of_what_may_be_held_for_the_next() -> None:
    pace = Pace(10)
    assert pace.claim_at_most() == 10
    pace.record(0.0001)
    assert pace.claim_at_most() == (10 + MOST_AHEAD) // 2


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (None, "no_such_module", 'there is no module "no_such_module"'),
        ("import no_such_package", "broken", "module \"broken\" does not import, No module named 'no_such_package'"),
        ("raise ValueError('mend me')", "broken", 'module "broken" does not import, ValueError: mend me'),
        ("", "bare", 'module "bare" has no Tasks'),
        ("import pgqueue\ntasks = pgqueue.Tasks()", "empty", 'the Tasks of module "empty" are empty'),
        ("import pgqueue\na, b = pgqueue.Tasks(), pgqueue.Tasks()", "several", "choose one, such as several:a"),
        ("import pgqueue\na = pgqueue.Tasks()", "named:b", 'has no Tasks named "b": it has a'),
    ],
)
def test_a_module_that_does_not_do_is_refused_with_a_cure(
    source: str | None, target: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = target.partition(":")[0] + "_of_the_test"
    target = target.replace(target.partition(":")[0], name)
    if source is not None:
        (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    with pytest.raises(WorkerMisconfigured) as refusal:
        load(target)

    assert message in str(refusal.value).replace("_of_the_test", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queues": ("",)}, "a queue's name is empty"),
        ({"queues": ("a", "a")}, "names a queue twice: a,a"),
        ({"concurrency": 0}, "--concurrency is 0: give at least 1"),
        ({"processes": -1}, "--processes is -1: give at least 1"),
        ({"lease": timedelta()}, "--lease is 0s: give at least 1s"),
        ({"poll_interval": timedelta()}, "--poll-interval is 0s: give at least 0.01s"),
        ({"name": ""}, "--name is empty"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(WorkerMisconfigured, match=message):
        Options(target="tasks", **options)  # type: ignore[arg-type]


# The threads of def handlers.


def test_a_job_handed_to_a_thread_comes_before_what_the_thread_takes_by_itself() -> None:
    """Otherwise a steady flow of others could keep it waiting for ever, its lease extended all the while."""
    order: list[str] = []
    done = threading.Event()
    others = 1000

    def take() -> Run | None:
        return other if len(order) < others else None

    def other() -> bool:
        order.append("other")
        return True

    def handed() -> bool:
        order.append("handed")
        done.set()
        return True

    def first() -> bool:
        threads.start(handed)
        return True

    threads = Threads(1, take)
    threads.start(first)

    assert done.wait(20)
    assert order.index("handed") == 0


def test_a_thread_that_is_left_behind_is_replaced_for_the_job_that_waits_for_it() -> None:
    stuck, done = threading.Event(), threading.Event()

    def hang() -> bool:
        stuck.wait(20)
        return False  # left behind

    def waiting() -> bool:
        done.set()
        return True

    threads = Threads(1, lambda: None)
    threads.start(hang)
    threads.start(waiting)
    threads.replace_one()

    assert done.wait(20)
    stuck.set()
