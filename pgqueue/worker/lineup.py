"""Which queues a worker serves, and in which order: as listed, or drawn by weight anew for each claim."""

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..errors import WorkerMisconfigured


@dataclass(frozen=True, slots=True)
class _Entry:
    """A queue's name, or a pattern in which * stands for any text and ? for one character."""

    pattern: str
    weight: float

    @property
    def is_glob(self) -> bool:
        return bool(re.search(r"[*?]", self.pattern))

    def matches(self, queue: str) -> bool:
        wanted = "".join(_IN_REGEX.get(character) or re.escape(character) for character in self.pattern)
        return re.fullmatch(wanted, queue, re.DOTALL) is not None


_IN_REGEX = {"*": ".*", "?": "."}
_TO_LIKE = str.maketrans("*?", "%_")


class Lineup:
    """Reads --queues: `mail`, `mail=5` (five times as often first as a queue of weight 1), `mail*`, `!mail_slow`.

    Without weights the order is strict: a queue is asked only while those before it leave hands free. Of the queues
    that a pattern stands for, those earlier in the alphabet come first. Raises WorkerMisconfigured.
    """

    def __init__(self, queues: Sequence[str]) -> None:
        self._excluded = [_Entry(text[1:], 1.0) for text in queues if text.startswith("!")]
        self._entries = [_entry(text) for text in queues if not text.startswith("!")]
        self._has_weights = any("=" in text for text in queues if not text.startswith("!"))
        if self._excluded and not self._entries:
            raise WorkerMisconfigured(f"--queues names none to serve: put * before {','.join(queues)}")
        if not self._entries or not all(entry.pattern for entry in self._entries + self._excluded):
            raise WorkerMisconfigured("a queue's name is empty: give --queues names such as default,email")
        patterns = [entry.pattern for entry in self._entries]
        if len(set(patterns)) < len(patterns):
            raise WorkerMisconfigured(f"--queues names a queue twice: {','.join(queues)}")
        self._found: list[list[str]] = []
        self.resolve([])

    @property
    def has_globs(self) -> bool:
        return any(entry.is_glob for entry in self._entries)

    def serves(self, queue: str) -> bool:
        return any(entry.matches(queue) for entry in self._entries) and not self._is_excluded(queue)

    def resolve(self, known: Iterable[str]) -> None:
        """The queues that there are, for the patterns to choose from."""
        known = sorted(known)
        taken = {entry.pattern for entry in self._entries if not entry.is_glob}
        self._found = []
        for entry in self._entries:
            names = [entry.pattern]
            if entry.is_glob:
                names = [name for name in known if name not in taken and entry.matches(name)]
                taken.update(names)
            self._found.append([name for name in names if not self._is_excluded(name)])

    def order(self) -> list[str]:
        """For the next claim, the first first."""
        if not self._has_weights:
            return [name for names in self._found for name in names]
        # Of exponential waiting times, the one with rate w ends first with probability w / (sum of the rates).
        drawn = sorted(
            zip(self._entries, self._found, strict=True), key=lambda pair: random.expovariate(pair[0].weight)
        )
        return [name for _, names in drawn for name in names]

    def names_and_globs(self) -> tuple[list[str], list[str]]:
        """For the database to tell whom a new job wakes: a glob as a LIKE pattern, which may match a little more."""
        names = [entry.pattern for entry in self._entries if not entry.is_glob]
        globs = [entry.pattern.translate(_TO_LIKE) for entry in self._entries if entry.is_glob]
        return names, globs

    def _is_excluded(self, queue: str) -> bool:
        return any(entry.matches(queue) for entry in self._excluded)


def _entry(text: str) -> _Entry:
    name, has_weight, weight = text.partition("=")
    try:
        entry = _Entry(name, float(weight) if has_weight else 1.0)
    except ValueError:
        entry = _Entry(name, 0.0)
    if not 0 < entry.weight < float("inf"):
        raise WorkerMisconfigured(f"--queues has the weight {weight!r} for {name}: give a number above 0")
    return entry
