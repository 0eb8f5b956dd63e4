"""The SQL contract against a reference in memory, over several sessions whose statements are interleaved."""

import os
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from .model.game import Game
from .model.sessions import open_database
from .model.verbs import VERBS, Verb, set_up

STEPS = int(os.environ.get("PGQUEUE_MODEL_STEPS", "3000"))
"""Played on each version. Unset, they are the same each time; set, to whatever number, they are drawn anew."""
IN_A_GAME = 60
SESSIONS = 3

# One rule for all verbs: of several, Hypothesis leaves out half in each game, and without a claim not much happens.
CALLS = st.sampled_from(VERBS).flatmap(lambda verb: st.tuples(st.just(verb), st.fixed_dictionaries(verb.arguments)))


def test_every_answer_and_state_is_what_the_reference_says(dsn: str) -> None:
    steps = 0
    with open_database(dsn, SESSIONS) as database:

        class Contract(RuleBasedStateMachine):
            def __init__(self) -> None:
                super().__init__()
                database.clear()
                set_up(Game(database))

            @rule(number=st.integers(0, SESSIONS - 1), call=CALLS)
            def step(self, number: int, call: tuple[Verb, dict[str, Any]]) -> None:
                nonlocal steps
                steps += 1
                verb, arguments = call
                verb.take(Game(database), number, **arguments)

            def teardown(self) -> None:
                database.clear()

        run_state_machine_as_test(
            Contract,
            settings=settings(
                # Some games end early.
                max_examples=STEPS * 5 // 4 // IN_A_GAME,
                stateful_step_count=IN_A_GAME,
                derandomize="PGQUEUE_MODEL_STEPS" not in os.environ,
                deadline=None,
                database=None,
                # Not shrunk: the story of a game is sooner read than made shorter by hundreds of others.
                phases=[Phase.generate],
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
            ),
        )
        print(f"{steps} steps, {database.waits} waits, {database.deadlocks} deadlocks", dict(database.seen))
        assert steps >= STEPS
        assert database.waits > 0
