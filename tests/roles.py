"""The role that all workers of the tests connect as: it may do what a worker must, and use an application's tables."""

from .clusters import Cluster

WORKER = "app_worker"
_SET_UP = f"""
do $$ begin
    if not exists (select from pg_roles where rolname = '{WORKER}') then create role {WORKER} login; end if;
end $$;
select pgqueue.grant_role('worker', '{WORKER}');
delete from pgqueue.audit;
grant create on schema public to {WORKER};
alter default privileges grant all on tables to {WORKER};
alter default privileges grant all on sequences to {WORKER};
"""


def let_workers_in(cluster: Cluster, database: str) -> None:
    """Tables that are made from now on are the application's, and its workers write into them."""
    cluster.execute(_SET_UP, database)


def as_worker(dsn: str) -> str:
    return dsn.replace("//postgres@", f"//{WORKER}@").replace("user=postgres", f"user={WORKER}")
