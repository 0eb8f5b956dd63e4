"""Which queues a worker serves: names, patterns, exclusions, in strict order or drawn by weight."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from pgqueue import Job, NewJob, Tasks, calls
from pgqueue.errors import WorkerMisconfigured
from pgqueue.worker import own_calls, watermark
from pgqueue.worker.lineup import Lineup

from .builders import a_job
from .conftest import Database
from .inline import until, work_off, working
from .test_claims import Sleeper

DRAWS = 4000
# Of 4000 draws a share of one half strays by 0.008 (one standard deviation).
TOLERANCE = 0.03


def order(*queues: str, known: tuple[str, ...] = ()) -> list[str]:
    lineup = Lineup(queues)
    lineup.resolve(known)
    return lineup.order()


@pytest.mark.parametrize(
    ("queues", "message"),
    [
        ([], "a queue's name is empty: give --queues names such as default,email"),
        ([""], "a queue's name is empty"),
        (["mail", ""], "a queue's name is empty"),
        (["=5"], "a queue's name is empty"),
        (["mail", "!"], "a queue's name is empty"),
        (["!mail_slow"], "!mail_slow"),
        (["!mail_slow", "!mail_bulk*"], "!mail_slow,!mail_bulk*"),
        (["mail", "news", "mail"], "--queues names a queue twice: mail,news,mail"),
        (["mail", "mail=5"], "--queues names a queue twice: mail,mail=5"),
        (["mail*", "mail*"], "--queues names a queue twice: mail*,mail*"),
        (["mail=0"], "--queues has the weight '0' for mail: give a number above 0"),
        (["mail=-1"], "--queues has the weight '-1' for mail: give a number above 0"),
        (["mail=nan"], "--queues has the weight 'nan' for mail: give a number above 0"),
        (["mail=inf"], "--queues has the weight 'inf' for mail: give a number above 0"),
        (["mail=-inf"], "--queues has the weight '-inf' for mail: give a number above 0"),
        (["mail="], "--queues has the weight '' for mail: give a number above 0"),
        (["news", "mail*=often"], "--queues has the weight 'often' for mail*: give a number above 0"),
        (["mail=1=2"], "--queues has the weight '1=2' for mail: give a number above 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(queues: list[str], message: str) -> None:
    with pytest.raises(WorkerMisconfigured) as refusal:
        Lineup(queues)

    assert message in str(refusal.value)


def test_names_are_asked_in_the_order_given() -> None:
    assert order("news", "mail", "default") == ["news", "mail", "default"]


def test_a_name_needs_nobody_to_know_the_queue() -> None:
    assert order("news", "mail", known=("other",)) == ["news", "mail"]


def test_a_glob_stands_for_the_known_queues_in_alphabetical_order() -> None:
    assert order("mail*", known=("mail_b", "news", "mail", "mail_a")) == ["mail", "mail_a", "mail_b"]


def test_a_glob_that_matches_nothing_yet_stands_for_nothing() -> None:
    assert order("mail*", "news") == ["news"]


def test_a_question_mark_is_one_character() -> None:
    assert order("mail?", known=("mail", "mail1", "mail12", "mail2")) == ["mail1", "mail2"]


def test_only_the_asterisk_and_the_question_mark_are_special() -> None:
    known = ("mail.x", "mailxx", "mail[1]x", "a%b", "acb", "a\\b")
    assert order("mail.*", known=known) == ["mail.x"]
    assert order("mail[1]?", known=known) == ["mail[1]x"]
    assert order("a%*", known=known) == ["a%b"]
    assert order("a\\*", known=known) == ["a\\b"]


def test_a_glob_keeps_its_place_among_the_names() -> None:
    assert order("urgent", "mail*", "default", known=("mail_b", "mail_a")) == ["urgent", "mail_a", "mail_b", "default"]


@pytest.mark.parametrize(
    ("queues", "expected"),
    [
        (("mail_b", "mail*"), ["mail_b", "mail_a", "mail_c"]),
        (("mail*", "mail_b"), ["mail_a", "mail_c", "mail_b"]),
    ],
)
def test_a_name_keeps_its_place_and_is_not_repeated_by_a_glob(queues: tuple[str, ...], expected: list[str]) -> None:
    assert order(*queues, known=("mail_a", "mail_b", "mail_c")) == expected


def test_a_queue_that_two_globs_match_belongs_to_the_first() -> None:
    known = ("mail_a", "mail_b", "news_a", "news_b")
    assert order("*_b", "mail*", "*", known=known) == ["mail_b", "news_b", "mail_a", "news_a"]


def test_resolving_again_forgets_what_is_not_known_any_more() -> None:
    lineup = Lineup(["mail*"])
    lineup.resolve(["mail_a", "mail_b"])
    lineup.resolve(["mail_c"])

    assert lineup.order() == ["mail_c"]


@pytest.mark.parametrize(
    ("queues", "expected"),
    [
        (("mail*", "!mail_slow"), ["mail_bulk1", "mail_fast"]),
        (("!mail_slow", "mail*"), ["mail_bulk1", "mail_fast"]),
        (("*", "!mail_bulk?", "!mail_s*"), ["mail_fast", "news"]),
        (("news", "mail_slow", "!mail_slow"), ["news"]),
        (("mail_slow", "news", "!mail*"), ["news"]),
        (("mail*", "!*"), []),
    ],
)
def test_a_negation_leaves_out_what_names_and_globs_have_in(queues: tuple[str, ...], expected: list[str]) -> None:
    assert order(*queues, known=("mail_slow", "news", "mail_bulk1", "mail_fast")) == expected


def test_it_serves_what_it_would_ask_if_it_knew_of_it() -> None:
    lineup = Lineup(["default", "mail*=2", "!mail_slow", "!*_off"])

    served = ["default", "mail", "mail_new", "mail_slower"]
    others = ["mail_slow", "mail_off", "news", "defaults", "Mail", ""]
    assert [queue for queue in served + others if lineup.serves(queue)] == served


def test_a_sleeper_is_known_by_its_names_and_by_like_patterns() -> None:
    names_and_globs = Lineup(["default", "mail*=2", "a_b", "x?_*", "!mail_slow"]).names_and_globs()

    assert names_and_globs == (["default", "a_b"], ["mail%", "x__%"])


def test_it_knows_whether_it_has_globs() -> None:
    assert Lineup(["news", "mail?"]).has_globs
    assert not Lineup(["news", "mail=5", "!old*"]).has_globs


@pytest.fixture
def seeded() -> Iterator[None]:
    state = random.getstate()
    random.seed(20_260_101)
    yield
    random.setstate(state)


def shares(lineup: Lineup, place: int = 0) -> dict[str, float]:
    """How often each queue was drawn for this place."""
    drawn = Counter(lineup.order()[place] for _ in range(DRAWS))
    return {queue: count / DRAWS for queue, count in drawn.items()}


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize(
    "weights",
    [
        {"a": 5, "b": 3, "c": 2},
        {"a": 0.5, "b": 0.25, "c": 0.25},
        {"a": 1, "b": 99},
        {"a": 1_000, "b": 3_000},
        {"a": 1e17, "b": 3e17},
        {"a": 1e-5, "b": 3e-5},
    ],
    ids=str,
)
def test_a_queue_comes_first_as_often_as_its_share_of_the_weights(weights: dict[str, float]) -> None:
    lineup = Lineup([f"{queue}={weight}" for queue, weight in weights.items()])

    expected = {queue: weight / sum(weights.values()) for queue, weight in weights.items()}
    assert shares(lineup) == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.usefixtures("seeded")
def test_among_weights_a_queue_without_one_has_the_weight_1() -> None:
    assert shares(Lineup(["a", "b=3"])) == pytest.approx({"a": 0.25, "b": 0.75}, abs=TOLERANCE)


@pytest.mark.usefixtures("seeded")
def test_the_second_place_is_drawn_by_weight_too() -> None:
    """A queue that happens to be empty hands its turns to the others, in proportion to their weights."""
    lineup = Lineup(["empty=90", "a=3", "b=1"])
    behind: Counter[str] = Counter()
    for _ in range(DRAWS):
        first, second, _third = lineup.order()
        if first == "empty":
            behind[second] += 1

    assert behind["a"] / behind.total() == pytest.approx(0.75, abs=TOLERANCE)


@pytest.mark.usefixtures("seeded")
def test_every_draw_lists_every_queue_once() -> None:
    lineup = Lineup(["a=1000", "mail*=0.1", "b", "!mail_slow"])
    lineup.resolve(["mail_b", "mail_slow", "mail_a", "b"])

    drawn = {tuple(lineup.order()) for _ in range(DRAWS)}
    assert {frozenset(queues) for queues in drawn} == {frozenset({"a", "b", "mail_a", "mail_b"})}
    assert all(len(queues) == 4 for queues in drawn)


@pytest.mark.usefixtures("seeded")
def test_the_queues_of_a_weighted_glob_share_its_weight_and_stay_together() -> None:
    lineup = Lineup(["mail*=3", "news=1"])
    lineup.resolve(["mail_b", "mail_a"])

    drawn = Counter(tuple(lineup.order()) for _ in range(DRAWS))
    assert drawn.keys() == {("mail_a", "mail_b", "news"), ("news", "mail_a", "mail_b")}
    assert drawn["mail_a", "mail_b", "news"] / DRAWS == pytest.approx(0.75, abs=TOLERANCE)


@pytest.mark.usefixtures("seeded")
def test_without_a_weight_nothing_is_drawn() -> None:
    lineup = Lineup(["c", "a", "b*"])
    lineup.resolve(["b2", "b1"])

    assert {tuple(lineup.order()) for _ in range(100)} == {("c", "a", "b1", "b2")}


# With a dispatcher.


class Ran(list[str]):
    """The queues of the jobs that a worker ran, in the order in which their handlers ran."""

    def tasks(self) -> Tasks:
        tasks = Tasks()

        async def work(job: Job) -> None:
            self.append(job.queue)

        tasks.register(work)
        return tasks


@pytest.fixture
def ran() -> Ran:
    return Ran()


def enqueue_in_turn(db: Database, *queues: str, each: int = 30) -> None:
    """One job of each queue, and again: no queue's jobs are older than another's."""
    db.run(calls.enqueue_many([NewJob(task="work", queue=queue) for _ in range(each) for queue in queues]))


@pytest.mark.parametrize("queues", [("a", "b", "c"), ("c", "b", "a")])
def test_in_strict_order_all_of_a_queue_is_run_before_the_next_is_asked(
    committed: Database, dsn: str, ran: Ran, queues: tuple[str, ...]
) -> None:
    enqueue_in_turn(committed, "a", "b", "c")

    work_off(dsn, ran.tasks(), queues=queues, concurrency=1)

    assert ran == [queue for queue in queues for _ in range(30)]


@pytest.mark.heavy
def test_of_many_queues_none_waits_for_the_next_sweep(
    committed: Database, dsn: str, ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sweeps are put off for ever here: with many queues the first one finds enough in the first."""
    monkeypatch.setattr(watermark, "SWEEP_EVERY", 3600.0)
    monkeypatch.setattr(watermark, "SWEEP_SHARE", 1e9)
    queues = [f"queue_{number:02}" for number in range(30)]
    enqueue_in_turn(committed, *queues, each=20)

    work_off(dsn, ran.tasks(), queues=tuple(queues))

    assert Counter(ran) == dict.fromkeys(queues, 20)


def test_in_strict_order_the_queue_comes_before_the_priority(committed: Database, dsn: str, ran: Ran) -> None:
    jobs = [NewJob(task="work", queue="b", priority=-10), *(NewJob(task="work", queue="a", priority=n) for n in (5, 9))]
    committed.run(calls.enqueue_many(jobs))

    work_off(dsn, ran.tasks(), queues=("a", "b"), concurrency=1)

    assert ran == ["a", "a", "b"]


def test_in_strict_order_a_glob_takes_its_queues_by_their_names(committed: Database, dsn: str, ran: Ran) -> None:
    enqueue_in_turn(committed, "other", "mail_b", "urgent", "mail_a", each=10)

    work_off(dsn, ran.tasks(), queues=("urgent", "mail*", "other"), concurrency=1)

    assert ran == [queue for queue in ("urgent", "mail_a", "mail_b", "other") for _ in range(10)]


@pytest.mark.heavy
def test_with_weights_no_queue_waits_until_another_is_empty(committed: Database, dsn: str, ran: Ran) -> None:
    """Of jobs of 20 ms each, either queue has enough for twice the longest time between two sweeps."""
    each = 500
    tasks = Tasks()

    @tasks.task
    async def work(job: Job) -> None:
        ran.append(job.queue)
        await asyncio.sleep(0.02)

    enqueue_in_turn(committed, "a", "mail_x", each=each)

    async def work_until_both_have_run() -> None:
        async with working(dsn, tasks, queues=("a=1", "mail*=1"), concurrency=1):
            await until(lambda: set(ran) == {"a", "mail_x"})

    asyncio.run(work_until_both_have_run())

    assert max(Counter(ran).values()) < each


def test_a_glob_serves_a_queue_that_did_not_exist_when_the_worker_started(
    committed: Database, dsn: str, ran: Ran
) -> None:
    async def work() -> None:
        async with working(dsn, ran.tasks(), queues=("default", "mail*")):
            a_job(committed)
            await until(lambda: ran == ["default"])
            a_job(committed, queue="mail_new")
            await until(lambda: ran == ["default", "mail_new"])

    asyncio.run(work())


@pytest.fixture
def sleeper(committed: Database, dsn: str) -> Iterator[Sleeper]:
    one = Sleeper(committed, dsn)
    yield one
    one.connection.close()


def test_a_worker_with_a_glob_is_woken_for_a_queue_that_did_not_exist(
    committed: Database, dsn: str, ran: Ran, sleeper: Sleeper
) -> None:
    def asleep() -> set[Any]:
        return {row["queue"] for row in committed.all("select queue from pgqueue.asleep where worker = 'inline'")}

    async def work() -> None:
        options: dict[str, Any] = {"listen": True, "poll_interval": timedelta(hours=1)}
        async with working(dsn, ran.tasks(), queues=("a_b", "mail*", "!mail_off"), **options) as dispatcher:
            await until(lambda: asleep() == {"a_b", "mail%"})
            a_job(committed, queue="mail_new")
            assert sleeper.hears() == ["mail_new"]
            dispatcher.wake()
            await until(lambda: ran == ["mail_new"])

    asyncio.run(work())


@pytest.mark.parametrize("queue", ["a_b", "mail_x", "mail", "mail%", "mail\\x"])
def test_a_job_of_a_name_or_a_glob_wakes_who_sleeps(committed: Database, sleeper: Sleeper, queue: str) -> None:
    committed.run(own_calls.fall_asleep("w", ["a_b"], ["mail%"]))
    a_job(committed, queue=queue)
    assert sleeper.hears() == [queue]


@pytest.mark.parametrize("queue", ["other", "xmail", "Mail_x", "a_bc", "a", "mai"])
def test_a_job_of_neither_wakes_nobody(committed: Database, sleeper: Sleeper, queue: str) -> None:
    committed.run(own_calls.fall_asleep("w", ["a_b"], ["mail%"]))
    a_job(committed, queue=queue)
    assert sleeper.hears() == []


def test_a_backslash_in_a_name_is_a_backslash(committed: Database, sleeper: Sleeper) -> None:
    committed.run(own_calls.fall_asleep("w", ["a\\b"], ["c\\%"]))
    for queue in ("a\\b", "ab", "c\\d", "c%"):
        a_job(committed, queue=queue)
    assert sleeper.hears() == ["a\\b", "c\\d"]


def test_who_woke_up_from_a_glob_is_not_notified(committed: Database, sleeper: Sleeper) -> None:
    committed.run(own_calls.fall_asleep("w", ["a_b"], ["mail%"]))
    committed.run(own_calls.wake_up("w"))
    a_job(committed, queue="mail_x")
    assert sleeper.hears() == []


def test_a_glob_knows_when_the_next_job_of_its_queues_is_due(committed: Database, sleeper: Sleeper) -> None:
    assert committed.run(own_calls.fall_asleep("w", [], ["mail%"])) is None
    a_job(committed, queue="other", delay=timedelta(minutes=1))
    a_job(committed, queue="mail_a", delay=timedelta(hours=2))
    a_job(committed, queue="mail_b", delay=timedelta(hours=1))
    sleeper.hears()

    due = committed.run(own_calls.fall_asleep("w", [], ["mail%"]))

    assert due is not None
    assert timedelta(minutes=59) < due <= timedelta(hours=1)
    a_job(committed, queue="mail_c", delay=timedelta(hours=3))
    assert sleeper.hears() == []
    a_job(committed, queue="mail_c", delay=timedelta(minutes=30))
    assert sleeper.hears() == ["mail_c"]


def test_a_resumed_queue_wakes_who_serves_it_by_a_glob(committed: Database, sleeper: Sleeper) -> None:
    committed.run(calls.pause("mail_x"))
    a_job(committed, queue="mail_x")
    committed.run(own_calls.fall_asleep("w", ["a_b"], ["mail%"]))
    assert sleeper.hears() == []

    committed.run(calls.resume("mail_x"))

    assert sleeper.hears() == ["mail_x"]


def test_a_name_that_reads_like_a_globs_pattern_falls_asleep_beside_it(committed: Database, sleeper: Sleeper) -> None:
    names, globs = Lineup(["mail_", "mail?"]).names_and_globs()
    a_job(committed, queue="mail1", delay=timedelta(hours=1))

    committed.run(own_calls.fall_asleep("w", names, globs))

    a_job(committed, queue="mail2")
    assert sleeper.hears() == ["mail2"]


def states(db: Database) -> dict[str, str]:
    return {row["queue"]: row["state"] for row in db.all("select queue, state from pgqueue.jobs")}


def test_a_negated_queue_is_left_alone(committed: Database, dsn: str, ran: Ran) -> None:
    enqueue_in_turn(committed, "mail_slow", "mail_a", "mail_b", each=1)

    async def work() -> None:
        async with working(dsn, ran.tasks(), queues=("mail*", "!mail_slow")):
            await until(lambda: len(ran) == 2)
            # It looks at the queues once more: what it was to find, it has found by then.
            a_job(committed, queue="mail_c")
            await until(lambda: len(ran) == 3)

    asyncio.run(work())
    assert ran == ["mail_a", "mail_b", "mail_c"]
    assert states(committed)["mail_slow"] == "ready"


def test_a_paused_queue_waits_while_the_others_go_on(committed: Database, dsn: str, ran: Ran) -> None:
    committed.run(calls.pause("mail_a"))
    enqueue_in_turn(committed, "mail_a", "mail_b", "default", each=5)

    async def work() -> None:
        async with working(dsn, ran.tasks(), queues=("mail*", "default"), concurrency=1):
            await until(lambda: len(ran) == 10)
            assert states(committed)["mail_a"] == "ready"
            committed.run(calls.resume("mail_a"))
            await until(lambda: len(ran) == 15)

    asyncio.run(work())
    assert ran == ["mail_b"] * 5 + ["default"] * 5 + ["mail_a"] * 5


def test_a_queue_that_is_paused_under_way_is_left_by_the_next_claim(committed: Database, dsn: str, ran: Ran) -> None:
    """By then the worker claims from its marks."""
    tasks = Tasks()

    @tasks.task
    async def work(job: Job) -> None:
        if not ran:
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute("select pgqueue.pause('a')")
        ran.append(job.queue)

    enqueue_in_turn(committed, "a", "b", each=10)

    async def run() -> None:
        async with working(dsn, tasks, queues=("a", "b"), concurrency=1):
            await until(lambda: ran.count("b") == 10)

    asyncio.run(run())
    assert ran[0] == "a"
    left = committed.value("select count(*) from pgqueue.job where queue = 'a' and state = 'ready'")
    assert left == 10 - ran.count("a") > 0
