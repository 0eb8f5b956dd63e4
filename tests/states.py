"""The life of a job as a chart: what every verb does to a job in every state. docs/states.md shows the same table."""

STATES = ("scheduled", "ready", "running", "cancelling", "blocked", "buried", "succeeded", "cancelled", "missing")
"""As the view pgqueue.jobs shows them, and two more: cancelling is a running job whose cancellation was asked for,
missing is an id that no job has."""

# A cell is the state that the job moves to (or stays in), the SQLSTATE of the refusal, or "-" where the verb, which
# names no job, passes this one by. Worker verbs are called with the attempt that the job is at.
_CHART = """
verb              scheduled  ready      running    cancelling  blocked    buried     succeeded  cancelled  missing
claim             -          running    -          -           -          -          -          -          -
complete          PQ409      PQ409      succeeded  succeeded   PQ409      PQ409      PQ409      PQ409      PQ404
fail              PQ409      PQ409      scheduled  cancelled   PQ409      PQ409      PQ409      PQ409      PQ404
fail_at_limit     PQ409      PQ409      buried     cancelled   PQ409      PQ409      PQ409      PQ409      PQ404
release           PQ409      PQ409      ready      cancelled   PQ409      PQ409      PQ409      PQ409      PQ404
release_unfit     PQ409      PQ409      ready      cancelled   PQ409      PQ409      PQ409      PQ409      PQ404
run_once          PQ409      PQ409      running    cancelling  PQ409      PQ409      PQ409      PQ409      PQ404
extend            PQ409      PQ409      running    cancelling  PQ409      PQ409      PQ409      PQ409      PQ404
bury_by_worker    PQ409      PQ409      buried     buried      PQ409      PQ409      PQ409      PQ409      PQ404
bury_by_operator  buried     buried     buried     buried      buried     PQ409      PQ409      PQ409      PQ404
kick              PQ409      PQ409      PQ409      PQ409       PQ409      ready      PQ409      PQ409      PQ404
cancel            cancelled  cancelled  cancelling cancelling  cancelled  cancelled  PQ409      PQ409      PQ404
purge             cancelled  cancelled  -          -           cancelled  -          -          -          -
reap              -          -          ready      cancelled   -          -          -          -          -
reap_at_limit     -          -          buried     cancelled   -          -          -          -          -
"""
CHART: dict[str, dict[str, str]] = {
    verb: dict(zip(STATES, cells, strict=True))
    for verb, *cells in (line.split() for line in _CHART.strip().splitlines()[1:])
}
"""CHART[verb][state] is the cell."""

OUTCOMES: dict[str, dict[str, str]] = {
    "complete":         {"running": "succeeded", "cancelling": "succeeded"},
    "fail":             {"running": "failed", "cancelling": "failed"},
    "fail_at_limit":    {"running": "failed", "cancelling": "failed"},
    "release":          {"running": "released", "cancelling": "cancelled"},
    "release_unfit":    {"running": "released", "cancelling": "cancelled"},
    "bury_by_worker":   {"running": "failed", "cancelling": "failed"},
    "bury_by_operator": {"running": "cancelled", "cancelling": "cancelled"},
    "reap":             {"running": "lost", "cancelling": "lost"},
    "reap_at_limit":    {"running": "lost", "cancelling": "lost"},
}  # fmt: skip
"""What the ended attempt's row says; a move that is not here ends no attempt."""
