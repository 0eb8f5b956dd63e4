drop function pgqueue.maintain();
drop function pgqueue.drop_partitions();
drop function pgqueue.make_partitions(integer);
drop function pgqueue.retire_worker(text, uuid, text);
drop function pgqueue.deregister_worker(text, uuid);
drop function pgqueue.still_here(text, uuid, text);
drop function pgqueue.namesake(text, text);
drop function pgqueue.register_worker;
create or replace function pgqueue.schema_version() returns integer
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$ select 5 $$;
