drop function pgqueue.bury;
drop function pgqueue.run_once(bigint, integer);
drop function pgqueue.release_unfit(bigint, integer, jsonb);
drop function pgqueue.release;
drop function pgqueue.fail_many;
drop function pgqueue.fail;
drop function pgqueue.settle_cancelled;
drop function pgqueue.drop_leases(bigint[]);
drop function pgqueue.keep_late;
drop function pgqueue.complete_many;
drop function pgqueue.check_settles(bigint[]);
drop function pgqueue.check_ascending(bigint[]);
drop function pgqueue.complete(bigint, integer, jsonb);
drop function pgqueue.backoff(integer);
drop function pgqueue.entomb;
drop function pgqueue.archive;
drop function pgqueue.end_attempt;
drop function pgqueue.refuse(bigint, text, integer);
create or replace function pgqueue.schema_version() returns integer
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$ select 2 $$;
