"""Tasks whose annotations are text, as `from __future__ import annotations` makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pgqueue
from pgqueue import Job, Tasks

if TYPE_CHECKING:
    from collections import OrderedDict

tasks = Tasks()


@tasks.task
def short(job: Job, order_id: int) -> None: ...


@tasks.task
def qualified(order_id: int, job: pgqueue.Job) -> None: ...


@tasks.task
def beside_what_is_imported_for_type_checkers_only(
    job: pgqueue.Job, order_id: int, lines: OrderedDict[str, int] | None = None
) -> None: ...
