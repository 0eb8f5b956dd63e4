"""Markdown tables, printed row by row, and what explains a wrong one."""

import sys
from collections.abc import Sequence

from .checker import Violation
from .observed import Observed

SHOWN = 10


def heading(columns: Sequence[str]) -> None:
    row(columns)
    row(["---"] * len(columns))


def row(cells: Sequence[str]) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


def explain(violations: Sequence[Violation], observed: Observed) -> None:
    """The first of them with the stories of their jobs, on stderr."""
    for violation in violations[:SHOWN]:
        print(f"  {violation.wrong}: {violation.key} {violation.what}", file=sys.stderr)
        for line in observed.story(violation.key):
            print(f"    {line}", file=sys.stderr)
