-- The way into running, the lease that guards it, and the way back when a worker goes silent.

create type pgqueue.claimed as (
    id bigint, attempt integer, task text, args jsonb, headers jsonb, queue text, priority integer,
    run_at timestamptz, enqueued_at timestamptz, failures integer, losses integer, timeout interval,
    lease_expires_at timestamptz);
comment on type pgqueue.claimed is 'What claim returns: a job and the attempt that now holds it.';

create type pgqueue.claimed_with_lease as (
    id bigint, attempt integer, task text, args jsonb, headers jsonb, queue text, priority integer,
    run_at timestamptz, enqueued_at timestamptz, failures integer, losses integer, timeout interval,
    lease_expires_at timestamptz, lease_id bigint);
comment on type pgqueue.claimed_with_lease is 'What claim_from returns: the lease is what its worker extends.';

-- Claims from several queues, the first first. With marks (arrays in step with queues) it scans one priority of each
-- queue from its mark, the last claimed position: dead index entries before it, which pile up while some transaction
-- holds its snapshot open, are never read again. Without marks it is the sweep: every priority of each queue that has
-- jobs, from its start. It finds what landed below the marks, and new priorities. docs/decisions/0002 has the figures.
-- Each lateral query is one scan of job_claim, and runs only while jobs are still wanted. Literal state, pinned planner
-- settings: the plan must not move. The rows are reached by an array of ids and not by a join, which a plan made on an
-- empty table turns into a scan of all jobs. They come back in no order.
create function pgqueue.claim_from(
    queues text[], max_jobs integer, lease interval, worker text,
    priorities smallint[] default null, run_ats timestamptz[] default null, ids bigint[] default null)
    returns setof pgqueue.claimed_with_lease
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
set jit = off
rows 100
as $$
#variable_conflict use_column
declare
    moment    timestamptz := pgqueue.clock();
    paused    text[] := array(select q.name from pgqueue.queue q where q.paused_until > moment);
    picked    bigint[];
    new_lease bigint;
begin
    if pgqueue.limited_caller() is not null then
        perform pgqueue.check_allowed('worker', queues);
    end if;
    if priorities is not null then
        picked := array(
            select j.id
              from unnest(queues, priorities, run_ats, claim_from.ids) as mark(queue, priority, run_at, id)
             cross join lateral (
                   select j.id from pgqueue.job j
                    where j.queue = mark.queue and j.priority = mark.priority and j.state = 'ready'
                      and (j.run_at, j.id) >= (mark.run_at, mark.id) and j.run_at <= moment
                      and mark.queue <> all (paused)
                      and (j.unfit_workers is null or claim_from.worker <> all (j.unfit_workers))
                    order by j.queue, j.priority, j.run_at, j.id
                    limit max_jobs
                      for update skip locked) j
             limit max_jobs);
    else
        picked := array(
            select j.id
              from unnest(queues) as sought(queue)
             cross join lateral (
                   with recursive first (priority, run_at, id) as (
                       (select j.priority, j.run_at, j.id from pgqueue.job j
                         where j.queue = sought.queue and j.state = 'ready' and sought.queue <> all (paused)
                         order by j.queue, j.priority, j.run_at, j.id
                         limit 1)
                        union all
                       select following.* from first f
                        cross join lateral (
                              select j.priority, j.run_at, j.id from pgqueue.job j
                               where j.queue = sought.queue and j.state = 'ready' and j.priority > f.priority
                               order by j.queue, j.priority, j.run_at, j.id
                               limit 1) following)
                   select * from first) first
             cross join lateral (
                   select j.id from pgqueue.job j
                    where j.queue = sought.queue and j.priority = first.priority and j.state = 'ready'
                      and (j.run_at, j.id) >= (first.run_at, first.id) and j.run_at <= moment
                      and (j.unfit_workers is null or claim_from.worker <> all (j.unfit_workers))
                    order by j.queue, j.priority, j.run_at, j.id
                    limit max_jobs
                      for update skip locked) j
             limit max_jobs);
    end if;
    if picked = '{}' then
        return;
    end if;
    insert into pgqueue.lease as l (worker, claimed_at, expires_at, job_ids)
    values (claim_from.worker, moment, moment + claim_from.lease, picked)
    returning l.id into new_lease;
    return query
    update pgqueue.job j
       set state = 'running', attempt = j.attempt + 1, lease_id = new_lease
     where j.id = any (picked)
    returning j.id, j.attempt::integer, j.task::text, j.args::jsonb, j.headers::jsonb, j.queue::text,
              j.priority::integer, j.run_at::timestamptz, j.enqueued_at::timestamptz, j.failures::integer,
              j.losses::integer, j.timeout::interval, moment + claim_from.lease, new_lease;
end
$$;
comment on function pgqueue.claim_from is 'A claim from several queues that starts at marks, or at the start.';

-- Who calls it: our own worker, while no claim has come to the end of every queue since its last sweep. The marks first;
-- then, where these come short, those queues from their start. They may have marks too.
create function pgqueue.claim_from_both(
    queues text[], max_jobs integer, lease interval, worker text, priorities smallint[], run_ats timestamptz[], ids bigint[],
    unfinished text[])
    returns setof pgqueue.claimed_with_lease
language plpgsql
set search_path = pg_catalog, pg_temp
rows 100
as $$
#variable_conflict use_column
declare
    found_jobs integer;
begin
    return query select * from pgqueue.claim_from(queues, max_jobs, lease, worker, priorities, run_ats, ids);
    get diagnostics found_jobs = row_count;
    if found_jobs < max_jobs then
        return query select * from pgqueue.claim_from(unfinished, max_jobs - found_jobs, lease, worker);
    end if;
end
$$;
comment on function pgqueue.claim_from_both is 'A claim that starts at marks and, where these come short, goes on at the start of queues.';

-- Who calls it: our own worker, at least every second while it is busy. It reaps each time, so that what a dead worker
-- has left is back as soon, however much other work there is.
create function pgqueue.sweep(queues text[], max_jobs integer, lease interval, worker text)
    returns setof pgqueue.claimed_with_lease
language plpgsql
set search_path = pg_catalog, pg_temp
rows 100
as $$
#variable_conflict use_column
begin
    perform pgqueue.reap();
    return query select * from pgqueue.claim_from(queues, max_jobs, lease, worker);
end
$$;
comment on function pgqueue.sweep is 'Reaps, and claims from the start of each queue.';

-- Who calls it: claim, which is too frequent to reap each time. Whoever has hands free finds by itself what the dead have
-- left, and needs no reaper.
create function pgqueue.claim_or_reap(queues text[], max_jobs integer, lease interval, worker text)
    returns setof pgqueue.claimed_with_lease
language plpgsql
set search_path = pg_catalog, pg_temp
rows 100
as $$
#variable_conflict use_column
declare
    found_jobs integer;
begin
    return query select * from pgqueue.claim_from(queues, max_jobs, lease, worker);
    get diagnostics found_jobs = row_count;
    if found_jobs < max_jobs and pgqueue.reap() > 0 then
        return query select * from pgqueue.claim_from(queues, max_jobs - found_jobs, lease, worker);
    end if;
end
$$;
comment on function pgqueue.claim_or_reap is 'Claims from the start of each queue; reaps where that comes short.';

-- Who calls it: any program, in any language.
create function pgqueue.claim(queue text default 'default', max_jobs integer default 1, lease interval default '30 s',
                              worker text default null) returns setof pgqueue.claimed
language plpgsql
set search_path = pg_catalog, pg_temp
rows 100
as $$
#variable_conflict use_column
begin
    perform pgqueue.check_duration('lease', coalesce(lease, interval '0'), false);
    if max_jobs is null or max_jobs < 1 then
        perform pgqueue.reject(format('max_jobs is %s: give a whole number of at least 1', coalesce(max_jobs::text, 'null')));
    end if;
    if coalesce(queue, '') = '' then
        perform pgqueue.reject('queue is empty: name a queue, such as ''default''');
    end if;
    return query
    select s.id, s.attempt, s.task, s.args, s.headers, s.queue, s.priority, s.run_at, s.enqueued_at, s.failures,
           s.losses, s.timeout, s.lease_expires_at
      from pgqueue.claim_or_reap(array[queue], max_jobs, lease, coalesce(worker, 'backend ' || pg_backend_pid())) s
     order by s.priority, s.run_at, s.id;
end
$$;
comment on function pgqueue.claim is 'Takes up to max_jobs ready jobs, most urgent first, under a lease; each row is one attempt.';

-- A job of a batch gets a lease row of its own, so that the rest of the batch keeps its expiry.
create function pgqueue.extend(id bigint, attempt integer, lease interval default '30 s') returns timestamptz
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    moment timestamptz := pgqueue.clock();
    held   pgqueue.job;
begin
    perform pgqueue.check_duration('lease', coalesce(extend.lease, interval '0'), false);
    select j.* into held from pgqueue.job j
     where j.id = extend.id and j.attempt = extend.attempt and j.state = 'running'
       for update;
    if not found or (pgqueue.limited_caller() is not null and not pgqueue.is_allowed('{worker}', held.queue)) then
        perform pgqueue.refuse(extend.id, 'extend', extend.attempt);
    end if;
    update pgqueue.lease l set expires_at = moment + extend.lease
     where l.id = held.lease_id and l.job_ids = array[held.id];
    if not found then
        with own as (
            insert into pgqueue.lease (worker, claimed_at, expires_at, job_ids)
            select l.worker, l.claimed_at, moment + extend.lease, array[held.id]
              from pgqueue.lease l where l.id = held.lease_id
            returning id)
        update pgqueue.job j set lease_id = own.id from own where j.id = held.id;
    end if;
    return moment + extend.lease;
end
$$;
comment on function pgqueue.extend(bigint, integer, interval) is 'The lease of one job ends this long from now; returns when.';

-- Who calls it: the lease keeper of a worker, for all it holds, batch by batch and job by job. A lease that was
-- extended further stays so. A locked lease is being settled, extended or reaped and is left alone: to wait for it would
-- hold up the worker's other leases, and deadlock with a transaction that settles several jobs.
-- Returns what the worker must stop: attempts that are lost, and those to be cancelled.
create function pgqueue.keep_held(ids bigint[], attempts integer[], lease interval)
    returns table (id bigint, attempt integer, verdict text)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    moment timestamptz := pgqueue.clock();
begin
    if pgqueue.limited_caller() is not null then
        perform pgqueue.check_settles(ids);
    end if;
    -- offset 0: a look-up by id for each job, whatever the plan; see drop_leases.
    with standing as materialized (
        select l.id from pgqueue.lease l
         where l.id = any (array(
                   select j.lease_id
                     from unnest(ids, attempts) as h(id, attempt)
                    cross join lateral (
                          select j.lease_id from pgqueue.job j
                           where j.id = h.id and j.attempt = h.attempt and j.state = 'running'
                          offset 0) j))
           for update skip locked)
    update pgqueue.lease l set expires_at = greatest(l.expires_at, moment + keep_held.lease)
      from standing s where l.id = s.id;
    -- A statement of its own, because it sees what a reaper committed before the leases were taken.
    return query
    select h.id, h.attempt, case when j.id is null then 'lost' else 'cancel' end
      from unnest(ids, attempts) as h(id, attempt)
      left join lateral (
           select j.id, j.cancel_requested_at from pgqueue.job j
            where j.id = h.id and j.attempt = h.attempt and j.state = 'running'
           offset 0) j on true
     where j.id is null or j.cancel_requested_at is not null;
end
$$;
comment on function pgqueue.keep_held is 'Extends the leases of these attempts; returns those that are lost, or to be cancelled.';

-- Takes back what these leases hold, as far as nobody is settling it: that job's lease then stays.
create function pgqueue.take_back(leases bigint[], max_jobs integer, moment timestamptz) returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    lost  pgqueue.job;
    taken integer := 0;
begin
    for lost in
        select j.* from pgqueue.job j
         where j.id = any (array(select unnest(l.job_ids) from pgqueue.lease l where l.id = any (leases)))
           and j.lease_id = any (leases) and j.state = 'running'
         limit max_jobs
           for update skip locked
    loop
        lost.losses := lost.losses + 1;
        if lost.cancel_requested_at is not null then
            perform pgqueue.settle_cancelled(lost, 'lost', null, moment);
        elsif lost.losses > lost.max_losses then
            delete from pgqueue.job j where j.id = lost.id;
            perform pgqueue.entomb(
                lost, format('lost %s times, at most %s are forgiven', lost.losses, lost.max_losses), null,
                pgqueue.end_attempt(lost, 'lost', null, moment), moment);
        else
            update pgqueue.job j set state = 'ready', run_at = moment, losses = lost.losses, lease_id = null
             where j.id = lost.id;
            perform pgqueue.end_attempt(lost, 'lost', null, moment);
            perform pgqueue.wake(lost.queue, moment);
        end if;
        taken := taken + 1;
    end loop;
    perform pgqueue.drop_leases(leases);
    return taken;
end
$$;
comment on function pgqueue.take_back(bigint[], integer, timestamptz) is 'The jobs of these leases are lost: ready again, buried or cancelled; returns how many.';

-- Who calls it: every claim that comes short, and any worker now and then. A lease that somebody extends is skipped. No
-- index on expires_at: it would be paid at every claim and every heartbeat, and leases are few.
create function pgqueue.reap(max_jobs integer default 1000) returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    moment timestamptz := pgqueue.clock();
    leases bigint[];
begin
    if max_jobs is null or max_jobs < 1 then
        perform pgqueue.reject(format('max_jobs is %s: give a whole number of at least 1', coalesce(max_jobs::text, 'null')));
    end if;
    select array_agg(e.id) into leases
      from (select l.id from pgqueue.lease l
             where l.expires_at <= moment
             order by l.expires_at
             limit max_jobs
               for update skip locked) e;
    return case when leases is null then 0 else pgqueue.take_back(leases, max_jobs, moment) end;
end
$$;
comment on function pgqueue.reap(integer) is 'Takes back the jobs of expired leases: ready again at once, or buried; returns how many.';

-- The next future run_at of a queue, priority by priority, so that it costs as many index probes as there are
-- priorities and not as many as there are scheduled jobs.
create function pgqueue.next_due(queue text, moment timestamptz) returns timestamptz
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set enable_bitmapscan = off
as $$
#variable_conflict use_column
declare
    at_priority smallint;
    due         timestamptz;
    earliest    timestamptz;
begin
    loop
        select j.priority into at_priority from pgqueue.job j
         where j.queue = next_due.queue and j.state = 'ready' and j.priority > coalesce(at_priority, -32769)
         order by j.queue, j.priority, j.run_at, j.id
         limit 1;
        exit when not found;
        select j.run_at into due from pgqueue.job j
         where j.queue = next_due.queue and j.state = 'ready' and j.priority = at_priority and j.run_at > moment
         order by j.queue, j.priority, j.run_at, j.id
         limit 1;
        earliest := least(earliest, due);
    end loop;
    return earliest;
end
$$;
comment on function pgqueue.next_due(text, timestamptz) is 'When the next scheduled job of a queue is due.';

-- The queues that have ready jobs, also those of the future; an index probe each.
create function pgqueue.ready_queues() returns setof text
language sql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set enable_bitmapscan = off
as $$
    with recursive used (queue) as (
        (select j.queue from pgqueue.job j where j.state = 'ready' order by j.queue, j.priority, j.run_at, j.id limit 1)
         union all
        select (select j.queue from pgqueue.job j where j.state = 'ready' and j.queue > u.queue
                 order by j.queue, j.priority, j.run_at, j.id
                 limit 1)
          from used u
         where u.queue is not null)
    select u.queue from used u where u.queue is not null and pgqueue.is_allowed('{worker,admin}', u.queue)
$$;
comment on function pgqueue.ready_queues() is 'The names of the queues that have ready jobs and are the caller''s.';

-- A worker has found nothing. It writes down that it sleeps and what it knows is coming, commits, claims once more,
-- and then waits. Returns how long until it should look by itself, or null. A paused queue needs no wake-up before
-- resume, which notifies whoever sleeps; under a pattern it may wake for nothing.
create function pgqueue.fall_asleep(worker text, queues text[], globs text[] default '{}') returns interval
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    moment timestamptz := pgqueue.clock();
    coming timestamptz;
begin
    if pgqueue.limited_caller() is not null then
        perform pgqueue.check_allowed('worker', queues);
    end if;
    with due as (
        select u.queue, coalesce(q.paused_until, pgqueue.next_due(u.queue, moment)) as run_at,
               case when q.paused_until is not null then timestamptz '-infinity' end as knows_of
          from unnest(queues) as u(queue)
          left join pgqueue.queue q on q.name = u.queue and q.paused_until > moment
         union all
        select g.glob, (select min(pgqueue.next_due(r.queue, moment)) from pgqueue.ready_queues() as r(queue)
                         where r.queue like g.glob escape ''), null
          from unnest(globs) as g(glob)
    ), written as (
        insert into pgqueue.asleep (worker, queue, next_run_at)
        -- A name may read like the pattern of a glob; the later time wakes for both.
        select fall_asleep.worker, d.queue, max(coalesce(d.knows_of, d.run_at, 'infinity')) from due d group by d.queue
        except select a.worker, a.queue, a.next_run_at from pgqueue.asleep a where a.worker = fall_asleep.worker
        on conflict (worker, queue) do update set next_run_at = excluded.next_run_at
    )
    select min(d.run_at) into coming from due d;
    return coming - moment;
end
$$;
comment on function pgqueue.fall_asleep(text, text[], text[]) is 'Marks a worker asleep; returns how long until the next due job.';

create function pgqueue.wake_up(worker text) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$ delete from pgqueue.asleep a where a.worker = wake_up.worker $$;
comment on function pgqueue.wake_up(text) is 'The worker is busy: nobody needs to notify it.';

create or replace function pgqueue.schema_version() returns integer
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$ select 4 $$;
