"""A little of the fault suite; `make faults` plays all of it."""

import pytest

from .clusters import bindirs
from .faults.faults import FAULTS, Fault
from .faults.suite import play

QUICK = ("worker killed", "backend killed")


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.name in QUICK], ids=lambda fault: fault.name)
def test_nothing_is_lost_and_nothing_doubled(fault: Fault) -> None:
    played = play(fault, next(iter(bindirs())), seed=1, jobs=300, injections=2)
    assert played.violations == []
    assert played.is_right
