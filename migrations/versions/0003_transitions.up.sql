-- Moves out of running, fenced by (id, attempt).
-- Locks are taken in one order everywhere: job first, then its lease. Whoever holds a lease row and wants its jobs
-- (the reaper) skips locked jobs instead of waiting. Planner settings are pinned: a move goes by primary key,
-- whatever the statistics say, and a batch, without bitmaps, in the order of its ids. jit goes with enable_seqscan:
-- before PostgreSQL 18 a path that is switched off costs 1e10 on paper, which is enough for a compilation, tens of
-- milliseconds, at every call that has no other path.

-- Raises PQ409 where the job exists and PQ404 where it does not. Called once a move has found nothing to move.
create function pgqueue.refuse(id bigint, verb text, attempt integer default null) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    live  pgqueue.job;
    over  text;
    queue text;
begin
    select j.* into live from pgqueue.job j where j.id = refuse.id;
    -- A worker of other queues learns nothing of this job.
    queue := coalesce(live.queue, (select d.queue from pgqueue.dead_letter d where d.id = refuse.id),
                      (select h.queue from pgqueue.job_history h where h.id = refuse.id limit 1));
    if not pgqueue.is_allowed('{worker,admin}', queue) then
        raise exception using errcode = 'PQ404', message = format(
            'cannot %s job %s, there is no such job in the queues of this role', verb, refuse.id);
    end if;
    if live.state = 'running' and live.attempt <> refuse.attempt then
        raise exception using errcode = 'PQ409', message = format(
            'cannot %s job %s as attempt %s, attempt %s holds it: drop this result, the newer attempt''s stands',
            verb, refuse.id, refuse.attempt, live.attempt);
    elsif live.id is not null then
        raise exception using errcode = 'PQ409', message = format(
            'cannot %s job %s, it is %s: look at it with pgqueue job %s', verb, refuse.id,
            case when live.state = 'ready' and live.run_at > pgqueue.clock() then 'scheduled' else live.state end, refuse.id);
    elsif exists (select from pgqueue.dead_letter d where d.id = refuse.id) then
        raise exception using errcode = 'PQ409', message = format(
            'cannot %s job %s, it is buried: pgqueue kick %s makes it ready again', verb, refuse.id, refuse.id);
    end if;
    select h.state into over from pgqueue.job_history h where h.id = refuse.id limit 1;
    if over is not null then
        raise exception using errcode = 'PQ409', message = format(
            'cannot %s job %s, it has already %s: nothing is left to do', verb, refuse.id,
            case over when 'cancelled' then 'been cancelled' else over end);
    end if;
    raise exception using errcode = 'PQ404', message = format(
        'cannot %s job %s, there is no such job: it was never committed, or its history has been dropped', verb, refuse.id);
end
$$;
comment on function pgqueue.refuse(bigint, text, integer) is 'Raises PQ409 or PQ404 with the reason.';

-- Writes how an attempt ended, and drops the lease if it held this job alone. A batch's lease is dropped by its
-- worker, or by the reaper once it has run out.
create function pgqueue.end_attempt(job pgqueue.job, outcome text, error jsonb, moment timestamptz) returns text
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    held pgqueue.lease;
begin
    select l.* into held from pgqueue.lease l where l.id = (job).lease_id;
    insert into pgqueue.attempt (job_id, attempt, outcome, worker, started_at, finished_at, error)
    values ((job).id, (job).attempt, outcome, coalesce(held.worker, 'unknown'), coalesce(held.claimed_at, moment), moment,
            error);
    delete from pgqueue.lease l where l.id = held.id and l.job_ids = array[(job).id];
    return held.worker;
end
$$;
comment on function pgqueue.end_attempt is 'Records how an attempt ended; returns the worker''s name.';

create function pgqueue.archive(job pgqueue.job, state text, result jsonb, reason text, worker text, moment timestamptz)
    returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
    insert into pgqueue.job_history (id, run_at, enqueued_at, finished_at, attempt, failures, losses, priority, state,
                                     queue, task, args, headers, result, reason, worker, enqueued_by)
    values ((job).id, (job).run_at, (job).enqueued_at, moment, (job).attempt, (job).failures, (job).losses,
            (job).priority, state, (job).queue, (job).task, (job).args, (job).headers, result, reason, worker,
            (job).enqueued_by)
$$;
comment on function pgqueue.archive is 'Puts a job that has left pgqueue.job into history.';

-- The follow-up is a plain insert, so that nothing can refuse it: a full queue must not keep a job from being buried.
create function pgqueue.entomb(job pgqueue.job, reason text, error jsonb, buried_by text, moment timestamptz) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
    insert into pgqueue.job (task, queue, args, run_at, enqueued_at)
    select follow_up ->> 'task', follow_up ->> 'queue',
           jsonb_build_object('buried', jsonb_build_object(
               'job_id', (job).id, 'queue', (job).queue, 'task', (job).task, 'args', (job).args, 'attempt', (job).attempt,
               'reason', reason, 'error', error)),
           moment, moment
      from pgqueue.follow_up((job).headers) as follow_up
     where follow_up is not null;
    insert into pgqueue.dead_letter (id, run_at, enqueued_at, buried_at, attempt, failures, losses, max_failures,
                                     max_losses, priority, queue, task, args, headers, timeout, unique_key, reason,
                                     error, buried_by, enqueued_by)
    values ((job).id, (job).run_at, (job).enqueued_at, moment, (job).attempt, (job).failures, (job).losses,
            (job).max_failures, (job).max_losses, (job).priority, (job).queue, (job).task, (job).args, (job).headers,
            (job).timeout, (job).unique_key, reason, error, buried_by, (job).enqueued_by)
$$;
comment on function pgqueue.entomb is 'Puts a job that has left pgqueue.job into dead_letter, and enqueues the job that is to follow.';

-- Delay before the n-th retry, n from 0: n^4 + 15 s and up to 10 s x (n + 1) of jitter, so that jobs that failed
-- together do not return together. Without jitter the 25 default retries span 1,763,395 s, 20.4 days. At most a year.
create function pgqueue.backoff(retry integer) returns interval
language sql volatile
return make_interval(secs => least(power(retry, 4) + 15 + random() * 10 * (retry + 1), 365 * 86400));
comment on function pgqueue.backoff(integer) is 'Delay before the n-th retry, n from 0.';

create function pgqueue.complete(id bigint, attempt integer, result jsonb default null) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    moment timestamptz := pgqueue.clock();
    gone   pgqueue.job;
begin
    delete from pgqueue.job j
     where j.id = complete.id and j.attempt = complete.attempt and j.state = 'running'
    returning j.* into gone;
    if not found or (pgqueue.limited_caller() is not null and not pgqueue.is_allowed('{worker}', gone.queue)) then
        perform pgqueue.refuse(complete.id, 'complete', complete.attempt);
    end if;
    perform pgqueue.archive(gone, 'succeeded', complete.result, null,
                            pgqueue.end_attempt(gone, 'succeeded', null, moment), moment);
end
$$;
comment on function pgqueue.complete(bigint, integer, jsonb) is 'A worker has done the job; PQ409 if it no longer holds it.';

-- Batches are named by arrays in step, their ids in ascending order: then width_bucket, a binary search, finds a job's
-- place in them, and one statement reaches the jobs by their primary key and checks each attempt.
create function pgqueue.check_ascending(ids bigint[]) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if ids is distinct from array(select u.id from unnest(ids) as u(id) order by u.id) then
        perform pgqueue.reject('ids are not in ascending order: sort them, and what goes with them');
    end if;
end
$$;
comment on function pgqueue.check_ascending(bigint[]) is 'Refuses ids that are out of order.';

-- Refuses a batch with a job of a queue that is not the caller's.
create function pgqueue.check_settles(ids bigint[]) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
begin
    perform pgqueue.check_allowed('worker', array(select distinct j.queue from pgqueue.job j where j.id = any (ids)));
end
$$;
comment on function pgqueue.check_settles(bigint[]) is 'Raises 42501 unless the calling role is a worker of the queues of all these jobs.';

-- Who calls it: pgqueue's own worker, for a batch. One job that is no longer held must not undo the others, so
-- refused ids are returned, not raised. results is a JSON array in step with the ids, or null where there are none.
-- The leases are those that the worker believes to be empty by now.
create function pgqueue.complete_many(ids bigint[], attempts integer[], results jsonb, leases bigint[]) returns setof bigint
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    moment    timestamptz := pgqueue.clock();
    completed bigint[];
    refused   bigint[];
begin
    perform pgqueue.check_ascending(ids);
    if pgqueue.limited_caller() is not null then
        perform pgqueue.check_settles(ids);
    end if;
    with gone as (
        delete from pgqueue.job j
         where j.id = any (ids) and j.state = 'running' and j.attempt = attempts[width_bucket(j.id, ids)]
        returning j.id, j.run_at, j.enqueued_at, j.attempt, j.failures, j.losses, j.priority, j.queue, j.task, j.args,
                  j.headers, j.lease_id, j.enqueued_by
    ), held as materialized (
        select g.*, l.worker, l.claimed_at from gone g left join pgqueue.lease l on l.id = g.lease_id
    ), archived as (
        insert into pgqueue.job_history (id, run_at, enqueued_at, finished_at, attempt, failures, losses, priority,
                                         state, queue, task, args, headers, result, worker, enqueued_by)
        select h.id, h.run_at, h.enqueued_at, moment, h.attempt, h.failures, h.losses, h.priority, 'succeeded', h.queue,
               h.task, h.args, h.headers, nullif(results -> width_bucket(h.id, ids) - 1, 'null'), h.worker, h.enqueued_by
          from held h
    ), ended as (
        insert into pgqueue.attempt (job_id, attempt, outcome, worker, started_at, finished_at)
        select h.id, h.attempt, 'succeeded', coalesce(h.worker, 'unknown'), coalesce(h.claimed_at, moment), moment
          from held h
        returning job_id
    )
    select coalesce(array_agg(e.job_id), '{}') into completed from ended e;
    if cardinality(completed) < cardinality(ids) then
        refused := array(select unnest(ids) except select unnest(completed));
        perform pgqueue.keep_late(refused, ids, attempts, results, null, moment);
        return query select unnest(refused);
    end if;
    perform pgqueue.drop_leases(leases);
end
$$;
comment on function pgqueue.complete_many is 'Completes a batch; returns the ids that were refused.';

-- Keeps what was refused because the attempt was lost. Refused is also what was sent twice: that attempt succeeded, and
-- nothing is kept. results and errors are JSON arrays in step with the ids, or null.
create function pgqueue.keep_late(refused bigint[], ids bigint[], attempts integer[], results jsonb, errors jsonb,
                                  moment timestamptz) returns void
language sql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
    insert into pgqueue.late_result (job_id, attempt, worker, arrived_at, result, error)
    select a.job_id, a.attempt, a.worker, moment, nullif(results -> r.place, 'null'), nullif(errors -> r.place, 'null')
      from (select u.id, width_bucket(u.id, ids) - 1 as place from unnest(refused) as u(id)) r
      join pgqueue.attempt a on a.job_id = r.id and a.attempt = attempts[r.place + 1] and a.outcome = 'lost'
    on conflict (job_id, attempt) do nothing
$$;
comment on function pgqueue.keep_late is 'Keeps the results and errors of attempts that were lost, to be looked at.';

-- Drops those leases that hold no job any more. A locked one is being extended or reaped: leave it to whoever has it.
-- offset 0 keeps the look at the jobs a look-up by id for each lease; as a join it may read the whole table.
create function pgqueue.drop_leases(leases bigint[]) returns void
language sql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
    with empty as materialized (
        select l.id from pgqueue.lease l
         where l.id = any (leases)
           and not exists (select from pgqueue.job j where j.id = any (l.job_ids) and j.lease_id = l.id offset 0)
           for update skip locked)
    delete from pgqueue.lease l using empty e where l.id = e.id
$$;
comment on function pgqueue.drop_leases(bigint[]) is 'Drops leases that hold no job any more.';

-- A cancelled job that fails, is released or is lost goes to history, not back to ready. Ends the attempt either way.
create function pgqueue.settle_cancelled(job pgqueue.job, outcome text, error jsonb, moment timestamptz) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_column
begin
    delete from pgqueue.job j where j.id = (job).id;
    perform pgqueue.archive(job, 'cancelled', null, (job).cancel_reason,
                            pgqueue.end_attempt(job, outcome, error, moment), moment);
end
$$;
comment on function pgqueue.settle_cancelled is 'Moves a running job whose cancellation was asked for into history.';

-- error: {"class", "message", "traceback"}, all text, and "timed_out": true where the job outran its timeout.
create function pgqueue.fail(id bigint, attempt integer, error jsonb, retry_in interval default null) returns text
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    moment  timestamptz := pgqueue.clock();
    held    pgqueue.job;
    outcome text := case when error @> '{"timed_out": true}' then 'timed_out' else 'failed' end;
begin
    perform pgqueue.check_duration('retry_in', retry_in, true);
    select j.* into held from pgqueue.job j
     where j.id = fail.id and j.attempt = fail.attempt and j.state = 'running'
       for update;
    if not found or (pgqueue.limited_caller() is not null and not pgqueue.is_allowed('{worker}', held.queue)) then
        perform pgqueue.refuse(fail.id, 'fail', fail.attempt);
    end if;
    held.failures := held.failures + 1;
    if held.cancel_requested_at is not null then
        perform pgqueue.settle_cancelled(held, outcome, error, moment);
        return 'cancelled';
    elsif held.failures > held.max_failures then
        delete from pgqueue.job j where j.id = held.id;
        perform pgqueue.entomb(held, format('failed %s times, at most %s are retried', held.failures, held.max_failures),
                               error, pgqueue.end_attempt(held, outcome, error, moment), moment);
        return 'buried';
    end if;
    held.run_at := moment + coalesce(retry_in, pgqueue.backoff(held.failures - 1));
    update pgqueue.job j
       set state = 'ready', run_at = held.run_at, failures = held.failures, lease_id = null
     where j.id = held.id;
    perform pgqueue.end_attempt(held, outcome, error, moment);
    perform pgqueue.wake(held.queue, held.run_at);
    return 'ready';
end
$$;
comment on function pgqueue.fail is 'A worker failed: the job is retried (ready), buried, or cancelled where that was asked for.';

-- Who calls it: pgqueue's own worker, for a batch; see complete_many. errors is a JSON array in step with the ids, and
-- retry_ins the seconds to each retry, null for the job's own backoff. Those that are to be buried, or that somebody has
-- cancelled, are few: fail moves them, one by one.
create function pgqueue.fail_many(ids bigint[], attempts integer[], errors jsonb, retry_ins double precision[],
                                  leases bigint[]) returns setof bigint
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    moment  timestamptz := pgqueue.clock();
    failed  bigint[];
    refused bigint[];
    queues  text[];
    run_ats timestamptz[];
    last    record;
begin
    perform pgqueue.check_ascending(ids);
    if pgqueue.limited_caller() is not null then
        perform pgqueue.check_settles(ids);
    end if;
    -- The least and the greatest stand for all.
    perform pgqueue.check_duration('retry_in', make_interval(secs => u.seconds), true)
       from (select min(u.seconds) from unnest(retry_ins) as u(seconds)
              union all select max(u.seconds) from unnest(retry_ins) as u(seconds)) as u(seconds);
    -- Not locked first: the update looks again at what it finds locked. Its old lease is read beside it, in arrays by
    -- place, because a join of the two may be planned to read all jobs.
    with held as materialized (
        select array_agg(h.id) as held_ids, array_agg(h.worker) as workers, array_agg(h.claimed_at) as claimed_ats
          from (select j.id, l.worker, l.claimed_at
                  from pgqueue.job j
                  left join pgqueue.lease l on l.id = j.lease_id
                 where j.id = any (ids)
                 order by j.id) h
    ), retried as (
        update pgqueue.job j
           set state = 'ready', failures = j.failures + 1, lease_id = null,
               run_at = moment + coalesce(make_interval(secs => retry_ins[width_bucket(j.id, ids)]),
                                          pgqueue.backoff(j.failures))
         where j.id = any (ids) and j.state = 'running' and j.attempt = attempts[width_bucket(j.id, ids)]
           and j.failures < j.max_failures and j.cancel_requested_at is null
        returning j.id, j.attempt, j.queue, j.run_at
    ), ended as (
        insert into pgqueue.attempt (job_id, attempt, outcome, worker, started_at, finished_at, error)
        select r.id, r.attempt, case when e.error -> 'timed_out' = 'true' then 'timed_out' else 'failed' end,
               coalesce(h.workers[width_bucket(r.id, h.held_ids)], 'unknown'),
               coalesce(h.claimed_ats[width_bucket(r.id, h.held_ids)], moment), moment, e.error
          from retried r
         cross join held h
         -- offset 0: looked up once for a row.
         cross join lateral (select nullif(errors -> width_bucket(r.id, ids) - 1, 'null') as error offset 0) e
    )
    select coalesce(array_agg(r.id), '{}'), array_agg(r.queue), array_agg(r.run_at) into failed, queues, run_ats
      from retried r;
    perform pgqueue.wake(u.queue, min(u.run_at)) from unnest(queues, run_ats) as u(queue, run_at) group by u.queue;
    if cardinality(failed) < cardinality(ids) then
        for last in
            select j.id, j.attempt, width_bucket(j.id, ids) as place
              from pgqueue.job j
             where j.id = any (ids) and j.state = 'running' and j.attempt = attempts[width_bucket(j.id, ids)]
             order by j.id
               for update
        loop
            perform pgqueue.fail(last.id, last.attempt, nullif(errors -> last.place - 1, 'null'),
                                 make_interval(secs => retry_ins[last.place]));
            failed := failed || last.id;
        end loop;
        refused := array(select unnest(ids) except select unnest(failed));
        perform pgqueue.keep_late(refused, ids, attempts, null, errors, moment);
        return query select unnest(refused);
    end if;
    perform pgqueue.drop_leases(leases);
end
$$;
comment on function pgqueue.fail_many is 'Fails a batch; returns the ids that were refused.';

create function pgqueue.release(id bigint, attempt integer, delay interval default '0', priority integer default null)
    returns void
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
    perform pgqueue.check_duration('delay', release.delay, true);
    if release.priority not between -32768 and 32767 then
        perform pgqueue.reject(format('priority is %s: give a whole number from -32768 (first) to 32767 (last)',
                                      release.priority));
    end if;
    select j.* into held from pgqueue.job j
     where j.id = release.id and j.attempt = release.attempt and j.state = 'running'
       for update;
    if not found or (pgqueue.limited_caller() is not null and not pgqueue.is_allowed('{worker}', held.queue)) then
        perform pgqueue.refuse(release.id, 'release', release.attempt);
    end if;
    if held.cancel_requested_at is not null then
        perform pgqueue.settle_cancelled(held, 'cancelled', null, moment);
        return;
    end if;
    held.run_at := moment + coalesce(release.delay, interval '0');
    update pgqueue.job j
       set state = 'ready', run_at = held.run_at, lease_id = null,
           priority = coalesce(release.priority, held.priority)
     where j.id = held.id;
    perform pgqueue.end_attempt(held, 'released', null, moment);
    perform pgqueue.wake(held.queue, held.run_at);
end
$$;
comment on function pgqueue.release is 'A worker gives a job back unharmed; counts as no failure.';

-- A worker that cannot run any job as things are, its disk full or its memory used up, gives this one back unharmed, and
-- is not given it again. A job that as many workers are unfit for as may lose it is to blame itself.
create function pgqueue.release_unfit(id bigint, attempt integer, error jsonb) returns text
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
    select j.* into held from pgqueue.job j
     where j.id = release_unfit.id and j.attempt = release_unfit.attempt and j.state = 'running'
       for update;
    if not found or (pgqueue.limited_caller() is not null and not pgqueue.is_allowed('{worker}', held.queue)) then
        perform pgqueue.refuse(release_unfit.id, 'release', release_unfit.attempt);
    end if;
    if held.cancel_requested_at is not null then
        perform pgqueue.settle_cancelled(held, 'cancelled', error, moment);
        return 'cancelled';
    end if;
    held.unfit_workers := held.unfit_workers
        || coalesce((select l.worker from pgqueue.lease l where l.id = held.lease_id), 'unknown');
    if cardinality(held.unfit_workers) > held.max_losses then
        delete from pgqueue.job j where j.id = held.id;
        perform pgqueue.entomb(
            held, format('%s workers were unfit for it, at most %s are forgiven', cardinality(held.unfit_workers),
                         held.max_losses), error, pgqueue.end_attempt(held, 'released', error, moment), moment);
        return 'buried';
    end if;
    update pgqueue.job j
       set state = 'ready', run_at = moment, lease_id = null, unfit_workers = held.unfit_workers
     where j.id = held.id;
    perform pgqueue.end_attempt(held, 'released', error, moment);
    perform pgqueue.wake(held.queue, moment);
    return 'ready';
end
$$;
comment on function pgqueue.release_unfit is 'A worker gives a job back because of its own state: ready for others, buried, or cancelled.';

-- Who calls it: a worker, before it starts a job that must not run twice. From here on any end but success buries it: the
-- next failure, and the next loss.
create function pgqueue.run_once(id bigint, attempt integer) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    held pgqueue.job;
begin
    update pgqueue.job j set max_failures = j.failures, max_losses = j.losses
     where j.id = run_once.id and j.attempt = run_once.attempt and j.state = 'running'
    returning j.* into held;
    if not found or (pgqueue.limited_caller() is not null and not pgqueue.is_allowed('{worker}', held.queue)) then
        perform pgqueue.refuse(run_once.id, 'run', run_once.attempt);
    end if;
end
$$;
comment on function pgqueue.run_once(bigint, integer) is 'The job is buried unless this attempt succeeds.';

-- A worker with its attempt, an operator without. An operator may bury a running job too: its worker is then refused.
create function pgqueue.bury(id bigint, attempt integer default null, reason text default null,
                             error jsonb default null) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    moment timestamptz := pgqueue.clock();
    gone   pgqueue.job;
    actor  text := session_user;
    wanted text := coalesce(bury.reason, case when bury.attempt is null then 'by an operator' else 'by its worker' end);
begin
    -- A second look, because whoever holds up the first may bury the job and kick it: another row under this id.
    for look in 1..2 loop
        delete from pgqueue.job j
         where j.id = bury.id and (bury.attempt is null or j.attempt = bury.attempt and j.state = 'running')
        returning j.* into gone;
        exit when found;
    end loop;
    if gone.id is null or not pgqueue.is_allowed(array[case when bury.attempt is null then 'admin' else 'worker' end], gone.queue) then
        perform pgqueue.refuse(bury.id, 'bury', bury.attempt);
    end if;
    if bury.attempt is not null then
        gone.failures := gone.failures + 1;
        actor := pgqueue.end_attempt(gone, 'failed', coalesce(error, jsonb_build_object('message', wanted)), moment);
    else
        if gone.state = 'running' then
            perform pgqueue.end_attempt(gone, 'cancelled', jsonb_build_object('message', 'buried: ' || wanted), moment);
        end if;
        perform pgqueue.note('bury', gone.queue, gone.id, jsonb_build_object('reason', wanted));
    end if;
    perform pgqueue.entomb(gone, wanted, error, actor, moment);
end
$$;
comment on function pgqueue.bury is 'Sets a job aside for a human, with the error that its worker met.';

create or replace function pgqueue.schema_version() returns integer
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$ select 3 $$;
