drop function pgqueue.wake_up(text);
drop function pgqueue.fall_asleep(text, text[], text[]);
drop function pgqueue.ready_queues();
drop function pgqueue.next_due(text, timestamptz);
drop function pgqueue.reap(integer);
drop function pgqueue.take_back(bigint[], integer, timestamptz);
drop function pgqueue.keep_held;
drop function pgqueue.extend(bigint, integer, interval);
drop function pgqueue.claim;
drop function pgqueue.claim_or_reap;
drop function pgqueue.sweep;
drop function pgqueue.claim_from_both;
drop function pgqueue.claim_from;
drop type pgqueue.claimed_with_lease;
drop type pgqueue.claimed;
create or replace function pgqueue.schema_version() returns integer
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$ select 3 $$;
