"""What the doctor finds, and that its cures cure."""

import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from pgqueue import calls, doctor
from pgqueue.cli import app
from pgqueue.doctor import Finding, Status

from .builders import a_job
from .clusters import Cluster
from .conftest import Database

NOWHERE = "postgresql://nobody@127.0.0.1:1/none"


def found_in(dsn: str, **options: str) -> dict[str, Finding]:
    return {finding.name: finding for finding in doctor.examine(dsn, **options)}


def sql_of(finding: Finding) -> str:
    return finding.cure[finding.cure.index(": ") + 2 :]


def test_a_migrated_database_has_nothing_that_fails(dsn: str) -> None:
    findings = found_in(dsn)

    # The servers of the tests are set up to be quick.
    assert findings.pop("settings").status is Status.WARN
    assert {finding.status for finding in findings.values()} == {Status.OK}
    assert len(findings) >= 11


def test_every_finding_that_is_not_ok_has_a_cure(dsn: str) -> None:
    for finding in (*doctor.examine(dsn), *doctor.examine(NOWHERE)):
        assert bool(finding.cure) == (finding.status is not Status.OK), finding


def test_an_unreachable_database_is_the_only_finding() -> None:
    (finding,) = doctor.examine(NOWHERE)

    assert (finding.name, finding.status) == ("connection", Status.FAIL)


def test_a_database_without_the_schema_is_told_to_migrate(server: Cluster) -> None:
    findings = found_in(server.dsn("postgres"))

    assert findings["schema"].status is Status.FAIL
    assert "pgqueue migrate" in findings["schema"].cure
    assert "leases" not in findings


def test_a_listen_dsn_that_leads_nowhere_fails(dsn: str) -> None:
    findings = found_in(dsn, listen_dsn=NOWHERE)

    assert findings["listen"].status is Status.FAIL
    assert "--no-listen" in findings["listen"].cure


def test_settings_that_risk_commits_are_named(committed: Database) -> None:
    finding = doctor.server_settings(committed.connection)

    assert "fsync is off" in finding.found
    assert "alter system set fsync = on;" in finding.cure
    assert "autovacuum" not in finding.found


def test_a_transaction_that_keeps_dead_rows_is_found_and_ended(committed: Database, dsn: str) -> None:
    other = psycopg.connect(dsn)
    other.execute("select pg_current_xact_id()")
    finding = doctor.old_transactions(committed.connection, older_than=timedelta())

    assert finding.status is Status.WARN
    assert f"process {other.info.backend_pid} of postgres" in finding.found
    committed.execute(f"select pg_terminate_backend({other.info.backend_pid})")
    with pytest.raises(psycopg.OperationalError):
        other.execute("select 1")
    other.close()


def test_autovacuum_switched_off_for_the_jobs_is_found(committed: Database) -> None:
    committed.execute("alter table pgqueue.job set (autovacuum_enabled = off)")
    finding = doctor.autovacuum(committed.connection)

    assert finding.status is Status.WARN
    committed.execute(sql_of(finding))
    assert doctor.autovacuum(committed.connection).status is Status.OK


def test_leases_that_ran_out_unseen_are_found(committed: Database) -> None:
    job = a_job(committed, state="running")
    committed.execute("update pgqueue.lease set expires_at = clock_timestamp() - interval '2 min'")
    finding = doctor.running_jobs(committed.connection)

    assert finding.status is Status.FAIL
    assert "0 workers are alive" in finding.found
    committed.execute(sql_of(finding))
    assert doctor.running_jobs(committed.connection).status is Status.OK
    assert committed.run(calls.job(job.id)).state == "ready"


def test_a_running_job_without_a_lease_is_found(committed: Database, dsn: str) -> None:
    job = a_job(committed, state="running")
    committed.execute("delete from pgqueue.lease")
    finding = doctor.running_jobs(committed.connection)

    assert finding.status is Status.FAIL
    for command in re.findall(r"pgqueue (\w+ \d+)", finding.cure):
        assert CliRunner().invoke(app, [*command.split(), "--dsn", dsn]).exit_code == 0
    assert doctor.running_jobs(committed.connection).status is Status.OK
    assert committed.run(calls.job(job.id)).state == "ready"


def test_rows_in_a_default_partition_are_found(committed: Database) -> None:
    committed.execute(
        "insert into pgqueue.attempt (job_id, started_at, finished_at, attempt, outcome, worker)"
        " values (1, '2001-01-01', '2001-01-01', 1, 'lost', 'w')"
    )
    assert doctor.default_partitions(committed.connection).status is Status.WARN

    committed.execute("select pgqueue.maintain()")
    assert doctor.default_partitions(committed.connection).status is Status.OK


def test_few_free_connections_are_found(committed: Database) -> None:
    finding = doctor.free_connections(committed.connection, spare=10_000)

    assert finding.status is Status.WARN
    assert "max_connections" in finding.cure


@pytest.fixture
def run(dsn: str) -> Callable[..., Any]:
    return lambda *options: CliRunner().invoke(app, ["doctor", "--dsn", dsn, *options])


def test_the_command_prints_findings_with_their_cures(run: Callable[..., Any]) -> None:
    ended = run()

    assert ended.exit_code == 0
    assert "ok    schema: version" in ended.stdout
    assert "warn  settings: " in ended.stdout
    assert "      cure: " in ended.stdout


def test_the_command_exits_with_1_if_anything_fails(run: Callable[..., Any]) -> None:
    ended = run("--listen-dsn", NOWHERE, "--json")

    assert ended.exit_code == 1
    listen = next(finding for finding in json.loads(ended.stdout) if finding["name"] == "listen")
    assert (listen["status"], list(listen)) == ("fail", ["name", "status", "found", "cure"])


def test_the_command_exits_with_1_where_nobody_answers() -> None:
    ended = CliRunner().invoke(app, ["doctor", "--dsn", NOWHERE])

    assert ended.exit_code == 1
    assert ended.stdout.startswith("fail  connection: cannot connect")


def test_ready_jobs_that_no_worker_serves_are_found(committed: Database, dsn: str) -> None:
    a_job(committed, queue="email")
    committed.execute("select pgqueue.register_worker('w', 'host', 1, gen_random_uuid(), '{default}')")

    assert found_in(dsn)["queues"].cure.startswith("Start pgqueue worker MODULE --queues email")
    committed.execute("select pgqueue.register_worker('w2', 'host', 2, gen_random_uuid(), '{default,email}')")
    assert found_in(dsn)["queues"].status is Status.OK
