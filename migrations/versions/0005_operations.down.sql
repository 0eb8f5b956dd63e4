drop function pgqueue.evict(text);
drop function pgqueue.purge(text);
drop function pgqueue.resume(text);
drop function pgqueue.pause(text, interval);
drop function pgqueue.cancel_held(bigint, integer, text);
drop function pgqueue.cancel(bigint, text);
drop function pgqueue.kick_many(text, integer);
drop function pgqueue.kick(bigint);
drop function pgqueue.exhume;
drop function pgqueue.note(text, text, bigint, jsonb);
create or replace function pgqueue.schema_version() returns integer
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$ select 4 $$;
