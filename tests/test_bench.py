import pytest

from pgqueue import bench

from .conftest import Database

pytestmark = pytest.mark.heavy


@pytest.mark.parametrize("name", list(bench.BENCHMARKS))
def test_a_benchmark_measures_and_leaves_nothing(committed: Database, dsn: str, name: str) -> None:
    figures = bench.run(dsn, name, bench.Size(jobs=50))

    measured = [figure for name, figure in figures.items() if name != "latencies_ms"]
    assert measured
    assert all(figure > 0 for figure in measured)
    for table in ("job", "job_history", "attempt", "dead_letter"):
        assert committed.value(f"select count(*) from pgqueue.{table}") == 0
