drop view pgqueue.workers;
drop view pgqueue.queues;
drop view pgqueue.attempts;
drop view pgqueue.jobs;
create or replace function pgqueue.schema_version() returns integer
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$ select 6 $$;
