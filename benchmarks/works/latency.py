"""From enqueue to the first line of the handler, single jobs at random gaps, an idle worker."""

from statistics import median

from ..bench import Bench, Figures, Result, Target, ours
from ..contestants import CELERY, DRAMATIQ, FLOOR, GRAPHILE, PGQUEUER, PROCRASTINATE, Peers


def latency(bench: Bench, peers: Peers) -> list[Result]:
    jobs = bench.scaled(1_000)
    result = Result(f"enqueue to handler start, {jobs:,} single jobs at random gaps", "ms")
    names = (FLOOR, GRAPHILE, PGQUEUER, PROCRASTINATE, DRAMATIQ, CELERY)
    contestants = [ours("pgqueue", "latency", jobs)]
    for name in names:
        contestants += peers.make(name, "latency", jobs)
    on_redis = [contestant for contestant in contestants if contestant.name in (DRAMATIQ, CELERY)]
    bench.in_turns(result, [contestant for contestant in contestants if contestant not in on_redis])
    bench.in_turns(result, on_redis, rounds=1)
    for rounds in result.rounds.values():
        for figures in rounds:
            _summarise(figures)
    result.notes = ["The peers on Redis run once."]
    result.targets = [
        Target("p50, raw NOTIFY and claim", "pgqueue", FLOOR, 1.3, "p50_ms", at_most=True),
        Target("p99, raw NOTIFY and claim", "pgqueue", FLOOR, 2.0, "p99_ms", at_most=True),
    ]
    for name in names[1:]:
        for key in ("p50_ms", "p99_ms"):
            result.targets.append(Target(f"{key[:3]}, {name}", "pgqueue", name, 1.0, key, at_most=True))
    return [result]


def _summarise(figures: Figures) -> None:
    latencies = sorted(figures["latencies_ms"])
    figures["p50_ms"] = median(latencies)
    figures["p99_ms"] = latencies[min(int(len(latencies) * 0.99), len(latencies) - 1)]
