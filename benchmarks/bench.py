"""What every work measures with: a cluster of its own, contestants that take turns, and the figures they bring."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from statistics import median
from typing import Any

import psycopg

from pgqueue import schema
from tests.clusters import Cluster

Figures = dict[str, Any]

PATIENCE = 300
"""Seconds until a contestant is given up."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A command that does the work in a database of its own and prints its figures as JSON."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Result:
    """The figures of one work, by contestant and round."""

    work: str
    unit: str
    rounds: dict[str, list[Figures]] = field(default_factory=dict)
    targets: list["Target"] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def values(self, name: str, key: str) -> list[float]:
        return [figures[key] for figures in self.rounds[name] if key in figures]

    def has(self, name: str) -> bool:
        return bool(self.rounds.get(name))


@dataclass(frozen=True, slots=True)
class Target:
    """The ratio of two contestants' medians that is to be reached, or, at_most, not to be exceeded."""

    what: str
    ours: str
    theirs: str
    bound: float
    key: str = "jobs_per_second"
    at_most: bool = False

    def ratios(self, result: Result) -> tuple[float, list[float]] | None:
        """Of the medians, and round by round. None where one of both did not take part."""
        if not (result.has(self.ours) and result.has(self.theirs)):
            return None
        ours, theirs = result.values(self.ours, self.key), result.values(self.theirs, self.key)
        return median(ours) / median(theirs), [one / other for one, other in zip(ours, theirs, strict=False)]

    def is_met(self, ratio: float) -> bool:
        return ratio <= self.bound if self.at_most else ratio >= self.bound


class Bench:
    """One run: the cluster, the peers' environments, and how often each measurement is taken."""

    def __init__(self, cluster: Cluster, rounds: int, scale: float) -> None:
        self.cluster = cluster
        self.rounds = rounds
        self._scale = scale
        self._numbers = count(1)

    def scaled(self, jobs: int) -> int:
        """Fewer in a quick run, which shows that everything runs and nothing else."""
        return max(int(jobs * self._scale), 100)

    @contextmanager
    def database(self, migrated: bool = True) -> Iterator[str]:
        """The DSN of an empty database."""
        name = f"bench_{next(self._numbers)}"
        self.cluster.execute(f"create database {name}")
        dsn = self.cluster.dsn(name)
        try:
            if migrated:
                schema.migrate(dsn)
            self.cluster.execute("checkpoint")
            yield dsn
        finally:
            self.cluster.execute(f"drop database {name} with (force)")

    def in_turns(self, result: Result, contestants: Sequence[Contestant], rounds: int | None = None) -> None:
        """A B C, A B C ..., so that what the machine does meanwhile touches all alike."""
        rounds = rounds or self.rounds
        for number in range(rounds):
            for contestant in contestants:
                figures = self.take_turn(contestant)
                print(f"  {number + 1}/{rounds} {contestant.name}: {brief(figures)}", file=sys.stderr, flush=True)
                result.rounds.setdefault(contestant.name, []).append(figures)

    def take_turn(self, contestant: Contestant) -> Figures:
        with self.database(migrated="pgqueue" in contestant.command) as dsn:
            environment = os.environ | {"BENCH_DSN": dsn, "PGQUEUE_DSN": dsn} | dict(contestant.environment)
            done = subprocess.run(
                contestant.command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
            )
        if done.returncode != 0:
            raise RuntimeError(f"{contestant.name} failed: {done.stderr[-2000:]}")
        printed: Any = json.loads(done.stdout)
        figures: Figures = printed[0] if isinstance(printed, list) else printed
        return figures

    def pgbench(self, dsn: str, script: str, clients: int, seconds: float) -> float:
        """Transactions per second of a script, by PostgreSQL's own load generator, with prepared statements."""
        path = self.cluster.folder / "script.sql"
        path.write_text(script)
        options = ["-n", "-M", "prepared", "-c", str(clients), "-j", "2", "-T", str(int(max(seconds, 1)))]
        done = subprocess.run(
            [str(self.cluster.bindir / "pgbench"), *options, "-f", str(path), dsn],
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE,
        )
        found = re.search(r"tps = ([\d.]+) \(without", done.stdout)
        assert found is not None, done.stdout
        return float(found[1])


def brief(figures: Figures) -> str:
    numbers = {key: value for key, value in figures.items() if isinstance(value, int | float)}
    return ", ".join(f"{key} {value:,.2f}" for key, value in numbers.items())


def connect(dsn: str) -> psycopg.Connection[Any]:
    return psycopg.connect(dsn, autocommit=True)


def ours(name: str, benchmark: str, jobs: int, *options: str) -> Contestant:
    """The product, by its own command."""
    command = [sys.executable, "-m", "pgqueue", "bench", benchmark, "--jobs", str(jobs), "--json", *options]
    return Contestant(name, command)
