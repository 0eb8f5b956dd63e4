-- What operators do, presence of workers, and the upkeep that any worker may do.

create function pgqueue.note(verb text, queue text, job_id bigint, detail jsonb) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
    insert into pgqueue.audit (at, actor, verb, queue, job_id, detail)
    values (pgqueue.clock(), session_user, verb, queue, job_id, coalesce(detail, '{}'))
$$;
comment on function pgqueue.note(text, text, bigint, jsonb) is 'Writes who did what into audit.';

-- Puts one dead letter back as the live job it was, both counts afresh, attempt kept. Null, where its unique_key is
-- taken by a younger job.
create function pgqueue.exhume(dead pgqueue.dead_letter) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    job_id bigint;
begin
    insert into pgqueue.job as j (id, run_at, enqueued_at, attempt, max_failures, max_losses, priority, queue, task, args,
                                  headers, timeout, unique_key, enqueued_by)
    values ((dead).id, pgqueue.clock(), (dead).enqueued_at, (dead).attempt, (dead).max_failures, (dead).max_losses,
            (dead).priority, (dead).queue, (dead).task, (dead).args, (dead).headers, (dead).timeout, (dead).unique_key,
            (dead).enqueued_by)
    on conflict (unique_key) where unique_key is not null do nothing
    returning j.id into job_id;
    if found then
        delete from pgqueue.dead_letter d where d.id = (dead).id;
        perform pgqueue.note('kick', (dead).queue, (dead).id, null);
    end if;
    return job_id;
end
$$;
comment on function pgqueue.exhume is 'Moves one dead letter back to job.';

create function pgqueue.kick(id bigint) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    dead pgqueue.dead_letter;
begin
    -- A second look, because whoever holds up the first may kick the job and bury it anew: another row under this id.
    for look in 1..2 loop
        select d.* into dead from pgqueue.dead_letter d where d.id = kick.id for update;
        exit when found;
    end loop;
    if dead.id is null then
        perform pgqueue.refuse(kick.id, 'kick');
    end if;
    if pgqueue.exhume(dead) is null then
        raise exception using errcode = 'PQ409', message = format(
            'cannot kick job %s, a younger live job has its unique_key "%s": wait for that one, or cancel it',
            kick.id, dead.unique_key);
    end if;
end
$$;
comment on function pgqueue.kick(bigint) is 'A buried job is ready again, under its id.';

create function pgqueue.kick_many(queue text, max_jobs integer default 1) returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    dead   pgqueue.dead_letter;
    kicked integer := 0;
begin
    if max_jobs is null or max_jobs < 1 then
        perform pgqueue.reject(format('max_jobs is %s: give a whole number of at least 1', coalesce(max_jobs::text, 'null')));
    end if;
    -- In the order of their keys, as enqueue_many does, so that the two cannot deadlock.
    for dead in
        select oldest.*
          from (select d.* from pgqueue.dead_letter d
                 where d.queue = kick_many.queue
                   and not exists (select from pgqueue.job j where j.unique_key = d.unique_key)
                 order by d.buried_at, d.id
                 limit max_jobs
                   for update skip locked) oldest
         order by oldest.unique_key, oldest.buried_at, oldest.id
    loop
        kicked := kicked + (pgqueue.exhume(dead) is not null)::integer;
    end loop;
    return kicked;
end
$$;
comment on function pgqueue.kick_many(text, integer) is 'Kicks the oldest buried jobs of a queue; returns how many.';

create function pgqueue.cancel(id bigint, reason text default null) returns text
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    moment timestamptz := pgqueue.clock();
    gone   pgqueue.job;
    dead   pgqueue.dead_letter;
begin
    -- A second look, because a kick may move the job from dead_letter to job while the first look waits for it.
    for look in 1..2 loop
        select j.* into gone from pgqueue.job j where j.id = cancel.id for update;
        if found then
            perform pgqueue.note('cancel', gone.queue, cancel.id, jsonb_build_object('reason', reason));
            if gone.state = 'running' then
                update pgqueue.job j set cancel_requested_at = coalesce(j.cancel_requested_at, moment),
                                         cancel_reason = coalesce(cancel.reason, j.cancel_reason)
                 where j.id = cancel.id;
                perform pgqueue.hint('pgqueue_cancel', cancel.id::text);
                return 'cancelling';
            end if;
            delete from pgqueue.job j where j.id = cancel.id;
            perform pgqueue.archive(gone, 'cancelled', null, cancel.reason, null, moment);
            return 'cancelled';
        end if;
        delete from pgqueue.dead_letter d where d.id = cancel.id returning d.* into dead;
        if found then
            perform pgqueue.note('cancel', dead.queue, cancel.id, jsonb_build_object('reason', reason));
            insert into pgqueue.job_history (id, run_at, enqueued_at, finished_at, attempt, failures, losses, priority,
                                             state, queue, task, args, headers, reason, enqueued_by)
            values (dead.id, dead.run_at, dead.enqueued_at, moment, dead.attempt, dead.failures, dead.losses,
                    dead.priority, 'cancelled', dead.queue, dead.task, dead.args, dead.headers,
                    coalesce(cancel.reason, dead.reason), dead.enqueued_by);
            return 'cancelled';
        end if;
    end loop;
    perform pgqueue.refuse(cancel.id, 'cancel');
end
$$;
comment on function pgqueue.cancel(bigint, text) is 'A waiting or buried job never runs; a running one is asked to stop.';

-- A worker ends its own job as cancelled: it was asked to, or its handler decided so.
create function pgqueue.cancel_held(id bigint, attempt integer, reason text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    held pgqueue.job;
begin
    select j.* into held from pgqueue.job j
     where j.id = cancel_held.id and j.attempt = cancel_held.attempt and j.state = 'running'
       for update;
    if not found or (pgqueue.limited_caller() is not null and not pgqueue.is_allowed('{worker}', held.queue)) then
        perform pgqueue.refuse(cancel_held.id, 'cancel', cancel_held.attempt);
    end if;
    held.cancel_reason := coalesce(cancel_held.reason, held.cancel_reason);
    perform pgqueue.settle_cancelled(held, 'cancelled', null, pgqueue.clock());
end
$$;
comment on function pgqueue.cancel_held(bigint, integer, text) is 'The attempt that holds a job ends it as cancelled.';

-- No duration: until resume. Not 'infinity', which most drivers cannot read; the last days of the year 9999.
create function pgqueue.pause(queue text, duration interval default null) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    until timestamptz;
begin
    if coalesce(pause.queue, '') = '' then
        perform pgqueue.reject('queue is empty: name the queue to pause');
    elsif length(pause.queue) > 200 then
        perform pgqueue.reject(format('queue has %s characters: at most 200 fit', length(pause.queue)));
    end if;
    perform pgqueue.check_duration('duration', pause.duration, false);
    until := coalesce(pgqueue.clock() + pause.duration, '9999-12-30 00:00:00+00');
    insert into pgqueue.queue (name, paused_until) values (pause.queue, until)
    on conflict (name) do update set paused_until = excluded.paused_until;
    perform pgqueue.note('pause', pause.queue, null, jsonb_build_object('until', until));
end
$$;
comment on function pgqueue.pause(text, interval) is 'No job of the queue is claimed until then, or until resume.';

create function pgqueue.resume(queue text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    update pgqueue.queue q set paused_until = null where q.name = resume.queue and q.paused_until is not null;
    if found then
        perform pgqueue.note('resume', resume.queue, null, null);
        if exists (select from pgqueue.asleep a where a.queue = resume.queue or resume.queue like a.queue escape '') then
            perform pgqueue.hint('pgqueue', resume.queue);
        end if;
    end if;
end
$$;
comment on function pgqueue.resume(text) is 'Ends a pause; nothing happens where there is none.';

-- A job that is just being claimed is skipped: it runs.
create function pgqueue.purge(queue text) returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    moment timestamptz := pgqueue.clock();
    purged integer;
begin
    with waiting as materialized (
        select j.id from pgqueue.job j
         where j.queue = purge.queue and j.state in ('ready', 'blocked')
           for update skip locked
    ), gone as (
        delete from pgqueue.job j using waiting w where j.id = w.id returning j.*
    ), archived as (
        insert into pgqueue.job_history (id, run_at, enqueued_at, finished_at, attempt, failures, losses, priority,
                                         state, queue, task, args, headers, reason, enqueued_by)
        select g.id, g.run_at, g.enqueued_at, moment, g.attempt, g.failures, g.losses, g.priority,
               'cancelled', g.queue, g.task, g.args, g.headers, 'purged', g.enqueued_by
          from gone g
    )
    select count(*) into purged from gone;
    perform pgqueue.note('purge', purge.queue, null, jsonb_build_object('jobs', purged));
    return purged;
end
$$;
comment on function pgqueue.purge(text) is 'Removes waiting jobs, which go to history as cancelled; returns how many.';

-- For a worker that is not to be trusted any more, whether it answers or not. What it holds is lost to it at once; where it
-- still runs it reads that it has retired, and stops. Its leases are not locked: who settles one of its jobs has them,
-- perhaps frozen before its commit, and is passed by like that job.
create function pgqueue.evict(worker text) returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    moment   timestamptz := pgqueue.clock();
    is_known boolean;
    leases   bigint[];
    taken    integer;
begin
    update pgqueue.worker w set state = 'retired', reason = 'evicted by ' || session_user where w.name = evict.worker;
    is_known := found;
    leases := array(select l.id from pgqueue.lease l where l.worker = evict.worker);
    if not is_known and leases = '{}' then
        perform pgqueue.reject(format('there is no worker "%s": pgqueue workers lists them', evict.worker));
    end if;
    taken := pgqueue.take_back(leases, 2147483647, moment);
    perform pgqueue.note('evict', null, null, jsonb_build_object('worker', evict.worker, 'jobs', taken));
    return taken;
end
$$;
comment on function pgqueue.evict(text) is 'A worker retires: what it holds is lost to it, and ready for others; returns how many jobs.';

create or replace function pgqueue.schema_version() returns integer
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$ select 5 $$;
