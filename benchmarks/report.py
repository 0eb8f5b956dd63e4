"""The report: every figure as JSON, tables in Markdown between two marks of docs/benchmarks.md, plots as PNG."""

import json
import os
import platform
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

import matplotlib

from .bench import Result

matplotlib.use("Agg")
import matplotlib.pyplot as plt

BEGIN, END = "<!-- results -->", "<!-- end of results -->"
SHOWN = (
    *("jobs_per_second", "tps", "p50_ms", "p99_ms", "marked_ms", "swept_ms"),
    *("statements_per_second", "percent_of_a_core", "early_mb", "late_mb", "most_mb"),
)


def write(results: Sequence[Result], docs: Path, about: dict[str, str]) -> None:
    folder = docs / "benchmarks"
    folder.mkdir(exist_ok=True)
    as_json = {"about": about, "results": [asdict(result) for result in results]}
    (folder / "results.json").write_text(json.dumps(as_json, indent=1) + "\n")
    plots = [plot for result in results for plot in _plots(result, folder)]
    page = docs / "benchmarks.md"
    text = page.read_text()
    tables = "\n\n".join(
        [_about(about), *map(_table, results), *(f"![{title}](benchmarks/{name})" for name, title in plots)]
    )
    page.write_text(f"{text.partition(BEGIN)[0]}{BEGIN}\n\n{tables}\n\n{END}{text.partition(END)[2]}")


def machine(server: str, rounds: int) -> dict[str, str]:
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "processor": f"{os.cpu_count()} cores, {model[1] if model else platform.processor()}",
        "system": f"{platform.system()} {platform.release()}",
        "server": server,
        "client": f"Python {platform.python_version()}",
        "rounds": str(rounds),
    }


def _about(about: dict[str, str]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in about.items())


def _table(result: Result) -> str:
    lines = [f"### {result.work[0].upper()}{result.work[1:]}", ""]
    keys = [key for key in SHOWN if any(result.values(name, key) for name in result.rounds)]
    lines += ["| | " + " | ".join(f"{_words(key)}, median (least to most)" for key in keys) + " |"]
    lines += ["|---|" + "---|" * len(keys)]
    for name in result.rounds:
        lines.append(f"| {name} | " + " | ".join(_cell(result.values(name, key)) for key in keys) + " |")
    if result.targets:
        lines += ["", "| ratio of medians | must be | is | in each round |", "|---|---|---|---|"]
    for target in result.targets:
        found = target.ratios(result)
        if found is None:
            continue
        ratio, each = found
        sign = "≤" if target.at_most else "≥"
        verdict = "" if target.is_met(ratio) else " **missed**"
        rounds = ", ".join(f"{one:.2f}" for one in each)
        lines.append(f"| {target.what} | {sign} {target.bound:g} | {ratio:.2f}{verdict} | {rounds} |")
    lines += [f"\n{note}" for note in result.notes]
    settings = {
        figures["settings"]: name
        for name, rounds in result.rounds.items()
        for figures in rounds
        if "settings" in figures
    }
    for text, name in settings.items():
        lines.append(f"\n{name}: {text}")
    return "\n".join(lines)


def _words(key: str) -> str:
    return key.replace("_", " ").replace("percent", "%")


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    digits = 0 if median(values) >= 100 else 2
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def _plots(result: Result, folder: Path) -> list[tuple[str, str]]:
    """(file, title) of each plot that these figures make."""
    numbered = {name: re.search(r"(queues|connections|processes|batch size): (\d+)$", name) for name in result.rounds}
    figure, axes = plt.subplots(figsize=(8, 4.5))
    if any("curve" in figures for rounds in result.rounds.values() for figures in rounds):
        name, title = "held.png", "Throughput over time while a snapshot is held"
        for who, rounds in result.rounds.items():
            if "curve" in rounds[0]:
                axes.plot(*_rates(rounds[0]["curve"]), label=who)
        axes.set(xlabel="jobs done", ylabel="jobs a second", yscale="log")
    elif any("latencies_ms" in figures for rounds in result.rounds.values() for figures in rounds):
        name, title = "latency.png", "From enqueue to handler start"
        for who, rounds in result.rounds.items():
            latencies = sorted(value for figures in rounds for value in figures["latencies_ms"])
            axes.plot(latencies, [100 * (place + 1) / len(latencies) for place in range(len(latencies))], label=who)
        axes.set(xlabel="milliseconds", ylabel="% of jobs that started within", xscale="log", ylim=(0, 100))
    elif numbered and all(numbered.values()):
        of = next(match for match in numbered.values() if match)
        what = of[1]
        name, title = f"{what.replace(' ', '-')}.png", f"Throughput against {what}"
        series: dict[str, list[tuple[int, float]]] = {}
        for who, match in numbered.items():
            assert match is not None
            line = who[: match.start()].rstrip(", ") or "pgqueue"
            point = (int(match[2]), median(result.values(who, "jobs_per_second")))
            series.setdefault(line, []).append(point)
        for line, points in series.items():
            axes.plot(*zip(*points, strict=True), marker="o", label=line)
        axes.set(xlabel=what, ylabel="jobs a second", xscale="log", ylim=(0, None))
    else:
        plt.close(figure)
        return []
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(folder / name, dpi=110)
    plt.close(figure)
    return [(name, title)]


def _rates(curve: Sequence[tuple[float, int]]) -> tuple[list[int], list[float]]:
    """Jobs a second over windows of two seconds."""
    done, rates, start = [], [], curve[0]
    for point in curve:
        if point[0] - start[0] >= 2:
            done.append(point[1])
            rates.append((point[1] - start[1]) / (point[0] - start[0]))
            start = point
    return done, rates
