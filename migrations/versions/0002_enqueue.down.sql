drop function pgqueue.enqueue_many(jsonb);
drop function pgqueue.check_jobs(jsonb);
drop function pgqueue.enqueue;
drop function pgqueue.job_with_key(text);
drop trigger wake_for_new_jobs on pgqueue.job;
drop function pgqueue.wake_for_new_jobs();
drop function pgqueue.wake(text, timestamptz);
drop function pgqueue.hint(text, text);
drop function pgqueue.check_room(text, bigint, bigint);
drop function pgqueue.fault_of;
drop function pgqueue.follow_up(jsonb);
drop function pgqueue.check_duration(text, interval, boolean);
drop function pgqueue.check_allowed(text, text[]);
drop function pgqueue.is_allowed(text[], text);
drop function pgqueue.limited_caller();
drop function pgqueue.reject(text);
create or replace function pgqueue.schema_version() returns integer
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$ select 1 $$;
