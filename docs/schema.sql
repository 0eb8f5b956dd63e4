-- The schema as pgqueue migrate leaves it, but for the partitions of single days. Made by make schema.

CREATE SCHEMA pgqueue;

CREATE TYPE pgqueue.claimed AS (
	id bigint,
	attempt integer,
	task text,
	args jsonb,
	headers jsonb,
	queue text,
	priority integer,
	run_at timestamp with time zone,
	enqueued_at timestamp with time zone,
	failures integer,
	losses integer,
	timeout interval,
	lease_expires_at timestamp with time zone
);

COMMENT ON TYPE pgqueue.claimed IS 'What claim returns: a job and the attempt that now holds it.';

CREATE TYPE pgqueue.claimed_with_lease AS (
	id bigint,
	attempt integer,
	task text,
	args jsonb,
	headers jsonb,
	queue text,
	priority integer,
	run_at timestamp with time zone,
	enqueued_at timestamp with time zone,
	failures integer,
	losses integer,
	timeout interval,
	lease_expires_at timestamp with time zone,
	lease_id bigint
);

COMMENT ON TYPE pgqueue.claimed_with_lease IS 'What claim_from returns: the lease is what its worker extends.';

CREATE DOMAIN pgqueue.final_state AS text
	CONSTRAINT is_known CHECK ((VALUE = ANY (ARRAY['succeeded'::text, 'cancelled'::text, 'expired'::text])));

CREATE DOMAIN pgqueue.instant AS timestamp with time zone
	CONSTRAINT is_from_1900_to_9999 CHECK (((VALUE >= '1900-01-01 00:00:00+00'::timestamp with time zone) AND (VALUE <= '9999-12-30 00:00:00+00'::timestamp with time zone)));

CREATE DOMAIN pgqueue.live_state AS text
	CONSTRAINT is_known CHECK ((VALUE = ANY (ARRAY['ready'::text, 'running'::text, 'blocked'::text])));

CREATE DOMAIN pgqueue.natural_number AS integer
	CONSTRAINT is_not_negative CHECK ((VALUE >= 0));

CREATE DOMAIN pgqueue.object AS jsonb
	CONSTRAINT is_an_object CHECK ((jsonb_typeof(VALUE) = 'object'::text));

CREATE DOMAIN pgqueue.outcome AS text
	CONSTRAINT is_known CHECK ((VALUE = ANY (ARRAY['succeeded'::text, 'failed'::text, 'lost'::text, 'timed_out'::text, 'released'::text, 'cancelled'::text])));

CREATE DOMAIN pgqueue.queue_name AS text
	CONSTRAINT has_1_to_200_characters CHECK (((VALUE <> ''::text) AND (length(VALUE) <= 200)));

CREATE DOMAIN pgqueue.task_name AS text
	CONSTRAINT has_1_to_500_characters CHECK (((VALUE <> ''::text) AND (length(VALUE) <= 500)));

CREATE DOMAIN pgqueue.time_limit AS interval
	CONSTRAINT is_above_0_and_up_to_100_years CHECK (((VALUE > '00:00:00'::interval) AND (VALUE <= '100 years'::interval)));

CREATE FUNCTION pgqueue.apply_grants(role text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    door text;
begin
    execute format('revoke all on all functions in schema pgqueue from %I', role);
    execute format('revoke all on all tables in schema pgqueue from %I', role);
    execute format('revoke all on schema pgqueue from %I', role);
    if not exists (select from pgqueue.role_grant g where g.role = apply_grants.role) then
        return;
    end if;
    execute format('grant usage on schema pgqueue to %I', role);
    for door in
        select format('execute on function %s', p.oid::regprocedure)
          from pgqueue.doors() d
          join pg_catalog.pg_proc p on p.proname = d.object and p.pronamespace = 'pgqueue'::regnamespace
         where d.kind in (select g.kind from pgqueue.role_grant g where g.role = apply_grants.role)
         union
        select format('select on pgqueue.%I', c.relname)
          from pgqueue.doors() d
          join pg_catalog.pg_class c on c.relname = d.object and c.relnamespace = 'pgqueue'::regnamespace
         where d.kind in (select g.kind from pgqueue.role_grant g where g.role = apply_grants.role)
    loop
        execute format('grant %s to %I', door, role);
    end loop;
end
$$;

COMMENT ON FUNCTION pgqueue.apply_grants(role text) IS 'Grants a role what role_grant says, and no more.';

CREATE TABLE pgqueue.job (
    id bigint NOT NULL,
    run_at pgqueue.instant DEFAULT clock_timestamp() NOT NULL,
    enqueued_at pgqueue.instant DEFAULT clock_timestamp() NOT NULL,
    lease_id bigint,
    cancel_requested_at timestamp with time zone,
    attempt pgqueue.natural_number DEFAULT 0 NOT NULL,
    failures pgqueue.natural_number DEFAULT 0 NOT NULL,
    losses pgqueue.natural_number DEFAULT 0 NOT NULL,
    max_failures pgqueue.natural_number DEFAULT 25 NOT NULL,
    max_losses pgqueue.natural_number DEFAULT 3 NOT NULL,
    priority smallint DEFAULT 0 NOT NULL,
    state pgqueue.live_state DEFAULT 'ready'::text NOT NULL,
    queue pgqueue.queue_name DEFAULT 'default'::text NOT NULL,
    task pgqueue.task_name NOT NULL,
    args pgqueue.object DEFAULT '{}'::jsonb NOT NULL,
    headers pgqueue.object DEFAULT '{}'::jsonb NOT NULL,
    timeout pgqueue.time_limit,
    unique_key text,
    cancel_reason text,
    unfit_workers text[],
    enqueued_by text,
    CONSTRAINT job_running_has_a_lease CHECK ((((state)::text = 'running'::text) = (lease_id IS NOT NULL)))
)
WITH (fillfactor='70', autovacuum_vacuum_scale_factor='0.01', autovacuum_vacuum_threshold='1000', autovacuum_vacuum_insert_scale_factor='0.1', autovacuum_analyze_scale_factor='0.05', autovacuum_vacuum_cost_delay='0');

COMMENT ON TABLE pgqueue.job IS 'Live jobs: ready (also those with a future run_at), running, blocked.';

COMMENT ON COLUMN pgqueue.job.attempt IS 'Claims so far; with the id, the fencing number of whoever runs the job.';

COMMENT ON COLUMN pgqueue.job.max_failures IS 'Failures that are retried; the next one buries.';

COMMENT ON COLUMN pgqueue.job.max_losses IS 'Losses (a worker that died or went silent) that are forgiven; the next one buries.';

COMMENT ON COLUMN pgqueue.job.unfit_workers IS 'Workers that gave the job back as unfit for it, and are not given it again.';

COMMENT ON COLUMN pgqueue.job.enqueued_by IS 'The role that enqueued it; null where that was the owner or a superuser.';

CREATE FUNCTION pgqueue.archive(job pgqueue.job, state text, result jsonb, reason text, worker text, moment timestamp with time zone) RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    insert into pgqueue.job_history (id, run_at, enqueued_at, finished_at, attempt, failures, losses, priority, state,
                                     queue, task, args, headers, result, reason, worker, enqueued_by)
    values ((job).id, (job).run_at, (job).enqueued_at, moment, (job).attempt, (job).failures, (job).losses,
            (job).priority, state, (job).queue, (job).task, (job).args, (job).headers, result, reason, worker,
            (job).enqueued_by)
$$;

COMMENT ON FUNCTION pgqueue.archive(job pgqueue.job, state text, result jsonb, reason text, worker text, moment timestamp with time zone) IS 'Puts a job that has left pgqueue.job into history.';

CREATE FUNCTION pgqueue.backoff(retry integer) RETURNS interval
    LANGUAGE sql
    RETURN make_interval(secs => LEAST(((power((retry)::double precision, (4)::double precision) + (15)::double precision) + ((random() * (10)::double precision) * ((retry + 1))::double precision)), ((365 * 86400))::double precision));

COMMENT ON FUNCTION pgqueue.backoff(retry integer) IS 'Delay before the n-th retry, n from 0.';

CREATE FUNCTION pgqueue.bury(id bigint, attempt integer DEFAULT NULL::integer, reason text DEFAULT NULL::text, error jsonb DEFAULT NULL::jsonb) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
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

COMMENT ON FUNCTION pgqueue.bury(id bigint, attempt integer, reason text, error jsonb) IS 'Sets a job aside for a human, with the error that its worker met.';

CREATE FUNCTION pgqueue.cancel(id bigint, reason text DEFAULT NULL::text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
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

COMMENT ON FUNCTION pgqueue.cancel(id bigint, reason text) IS 'A waiting or buried job never runs; a running one is asked to stop.';

CREATE FUNCTION pgqueue.cancel_held(id bigint, attempt integer, reason text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
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

COMMENT ON FUNCTION pgqueue.cancel_held(id bigint, attempt integer, reason text) IS 'The attempt that holds a job ends it as cancelled.';

CREATE FUNCTION pgqueue.check_allowed(kind text, queues text[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    forbidden text;
begin
    if pgqueue.limited_caller() is null then
        return;
    end if;
    select u.queue into forbidden from unnest(queues) as u(queue)
     where not pgqueue.is_allowed(array[kind, 'admin'], u.queue) limit 1;
    if found then
        raise exception using errcode = '42501', message = format(
            'role "%1$s" is no %2$s of queue "%3$s": pgqueue grant %2$s %1$s --queue %3$s', pgqueue.limited_caller(),
            kind, forbidden);
    end if;
end
$_$;

COMMENT ON FUNCTION pgqueue.check_allowed(kind text, queues text[]) IS 'Raises 42501 unless the calling role was granted this kind, or admin, for all these queues.';

CREATE FUNCTION pgqueue.check_ascending(ids bigint[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if ids is distinct from array(select u.id from unnest(ids) as u(id) order by u.id) then
        perform pgqueue.reject('ids are not in ascending order: sort them, and what goes with them');
    end if;
end
$$;

COMMENT ON FUNCTION pgqueue.check_ascending(ids bigint[]) IS 'Refuses ids that are out of order.';

CREATE FUNCTION pgqueue.check_duration(name text, duration interval, zero_allowed boolean) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if duration < interval '0' or duration = interval '0' and not zero_allowed or duration > interval '100 years' then
        perform pgqueue.reject(
            format('%s is %s: give a duration %s 0 and up to 100 years, such as ''30 s''', name, duration,
                   case when zero_allowed then 'of at least' else 'above' end));
    end if;
end
$$;

COMMENT ON FUNCTION pgqueue.check_duration(name text, duration interval, zero_allowed boolean) IS 'Refuses a negative, endless or (unless allowed) zero duration.';

CREATE FUNCTION pgqueue.check_jobs(jobs jsonb) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
declare
    r record;
begin
    select e.position, coalesce('has the unknown key "' || k.key || '"', 'is a JSON ' || jsonb_typeof(e.job)) as wrong into r
      from jsonb_array_elements(jobs) with ordinality as e(job, position)
      left join lateral jsonb_object_keys(case when jsonb_typeof(e.job) = 'object' then e.job else '{}' end) as k(key) on true
     where jsonb_typeof(e.job) <> 'object'
        or k.key <> all ('{task,args,queue,priority,delay,run_at,unique_key,max_failures,timeout,headers}')
     limit 1;
    if found then
        perform pgqueue.reject(
            format('job %s of the array %s: give an object with the keys task, args, queue, priority, delay, run_at, '
                   'unique_key, max_failures, timeout, headers', r.position, r.wrong));
    end if;
    begin
        select e.position, f.fault into r
          from jsonb_array_elements(jobs) with ordinality as e(job, position),
               jsonb_to_record(e.job) as j(task text, args jsonb, queue text, priority integer, delay interval,
                   run_at timestamptz, unique_key text, max_failures integer, timeout interval, headers jsonb),
               pgqueue.fault_of(j.task, j.args, j.queue, j.priority, j.delay, j.run_at, j.unique_key, j.max_failures,
                                j.timeout, j.headers) as f(fault)
         where f.fault is not null
         order by e.position
         limit 1;
    exception when data_exception then
        perform pgqueue.reject(sqlerrm || ': give values of the types that pgqueue.enqueue takes');
    end;
    if r.fault is not null then
        perform pgqueue.reject(format('in job %s of the array, %s', r.position, r.fault));
    end if;
    -- Those with a key need no room where it is taken: enqueue looks at each.
    perform pgqueue.check_room(coalesce(e.job ->> 'queue', 'default'), max(octet_length(e.job ->> 'args')), 0)
       from jsonb_array_elements(jobs) as e(job)
      where e.job ->> 'unique_key' is null
      group by coalesce(e.job ->> 'queue', 'default');
end
$$;

COMMENT ON FUNCTION pgqueue.check_jobs(jobs jsonb) IS 'Refuses an array of new jobs with what is wrong in it, where something is.';

CREATE FUNCTION pgqueue.check_role(kind text, role text, queues text[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    queue text;
begin
    if kind is null or kind <> all ('{producer,worker,observer,admin}') then
        perform pgqueue.reject(format('the kind is "%s": choose producer, worker, observer or admin', kind));
    elsif not exists (select from pg_catalog.pg_roles r where r.rolname = role) then
        perform pgqueue.reject(format('there is no role "%s" in this database server: create it first, with create role', role));
    elsif queues is not null and kind in ('observer', 'admin') then
        perform pgqueue.reject(format('the kind %s is for all queues: leave the queues out', kind));
    end if;
    foreach queue in array coalesce(queues, '{}') loop
        if coalesce(queue, '') = '' or queue = '*' or length(queue) > 200 then
            perform pgqueue.reject(format('the queue is "%s": name one of 1 to 200 characters, or leave it out for all', left(queue, 200)));
        end if;
    end loop;
end
$$;

COMMENT ON FUNCTION pgqueue.check_role(kind text, role text, queues text[]) IS 'Refuses a kind, a role or queues that cannot be granted.';

CREATE FUNCTION pgqueue.check_room(queue text, largest_args bigint, new_jobs bigint) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
declare
    max_bytes integer;
    max_jobs  integer;
    waiting   bigint;
begin
    select q.max_args_bytes, q.max_waiting into max_bytes, max_jobs
      from pgqueue.queue q where q.name = check_room.queue;
    max_bytes := coalesce(max_bytes, 1048576);
    if largest_args > max_bytes then
        perform pgqueue.reject(
            format('args has %s bytes and queue "%s" takes at most %s: store the data elsewhere and pass its key, '
                   'or raise pgqueue.queue.max_args_bytes', largest_args, check_room.queue, max_bytes));
    end if;
    if max_jobs is not null then
        select count(*) into waiting
          from (select from pgqueue.job j
                 where j.queue = check_room.queue and j.state = 'ready'
                 limit max_jobs) w;
        if waiting + new_jobs > max_jobs then
            raise exception using errcode = 'PQ429',
                message = format('queue "%s" is full, %s of at most %s jobs wait: try again later, start more workers, '
                                 'or raise pgqueue.queue.max_waiting', check_room.queue, waiting, max_jobs);
        end if;
    end if;
end
$$;

COMMENT ON FUNCTION pgqueue.check_room(queue text, largest_args bigint, new_jobs bigint) IS 'Refuses what the settings of a queue forbid.';

CREATE FUNCTION pgqueue.check_settles(ids bigint[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
begin
    perform pgqueue.check_allowed('worker', array(select distinct j.queue from pgqueue.job j where j.id = any (ids)));
end
$$;

COMMENT ON FUNCTION pgqueue.check_settles(ids bigint[]) IS 'Raises 42501 unless the calling role is a worker of the queues of all these jobs.';

CREATE FUNCTION pgqueue.claim(queue text DEFAULT 'default'::text, max_jobs integer DEFAULT 1, lease interval DEFAULT '00:00:30'::interval, worker text DEFAULT NULL::text) RETURNS SETOF pgqueue.claimed
    LANGUAGE plpgsql SECURITY DEFINER ROWS 100
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

COMMENT ON FUNCTION pgqueue.claim(queue text, max_jobs integer, lease interval, worker text) IS 'Takes up to max_jobs ready jobs, most urgent first, under a lease; each row is one attempt.';

CREATE FUNCTION pgqueue.claim_from(queues text[], max_jobs integer, lease interval, worker text, priorities smallint[] DEFAULT NULL::smallint[], run_ats timestamp with time zone[] DEFAULT NULL::timestamp with time zone[], ids bigint[] DEFAULT NULL::bigint[]) RETURNS SETOF pgqueue.claimed_with_lease
    LANGUAGE plpgsql SECURITY DEFINER ROWS 100
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    SET jit TO 'off'
    AS $$
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

COMMENT ON FUNCTION pgqueue.claim_from(queues text[], max_jobs integer, lease interval, worker text, priorities smallint[], run_ats timestamp with time zone[], ids bigint[]) IS 'A claim from several queues that starts at marks, or at the start.';

CREATE FUNCTION pgqueue.claim_from_both(queues text[], max_jobs integer, lease interval, worker text, priorities smallint[], run_ats timestamp with time zone[], ids bigint[], unfinished text[]) RETURNS SETOF pgqueue.claimed_with_lease
    LANGUAGE plpgsql SECURITY DEFINER ROWS 100
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

COMMENT ON FUNCTION pgqueue.claim_from_both(queues text[], max_jobs integer, lease interval, worker text, priorities smallint[], run_ats timestamp with time zone[], ids bigint[], unfinished text[]) IS 'A claim that starts at marks and, where these come short, goes on at the start of queues.';

CREATE FUNCTION pgqueue.claim_or_reap(queues text[], max_jobs integer, lease interval, worker text) RETURNS SETOF pgqueue.claimed_with_lease
    LANGUAGE plpgsql ROWS 100
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

COMMENT ON FUNCTION pgqueue.claim_or_reap(queues text[], max_jobs integer, lease interval, worker text) IS 'Claims from the start of each queue; reaps where that comes short.';

CREATE FUNCTION pgqueue.clock() RETURNS timestamp with time zone
    LANGUAGE sql PARALLEL SAFE
    RETURN clock_timestamp();

COMMENT ON FUNCTION pgqueue.clock() IS 'The clock that every move reads, once.';

CREATE FUNCTION pgqueue.complete(id bigint, attempt integer, result jsonb DEFAULT NULL::jsonb) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
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

COMMENT ON FUNCTION pgqueue.complete(id bigint, attempt integer, result jsonb) IS 'A worker has done the job; PQ409 if it no longer holds it.';

CREATE FUNCTION pgqueue.complete_many(ids bigint[], attempts integer[], results jsonb, leases bigint[]) RETURNS SETOF bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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

COMMENT ON FUNCTION pgqueue.complete_many(ids bigint[], attempts integer[], results jsonb, leases bigint[]) IS 'Completes a batch; returns the ids that were refused.';

CREATE FUNCTION pgqueue.deregister_worker(name text, session uuid) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    delete from pgqueue.asleep a where a.worker = deregister_worker.name
       and exists (select from pgqueue.worker w where w.name = deregister_worker.name and w.session = deregister_worker.session);
    delete from pgqueue.worker w where w.name = deregister_worker.name and w.session = deregister_worker.session;
$$;

COMMENT ON FUNCTION pgqueue.deregister_worker(name text, session uuid) IS 'A worker stops.';

CREATE FUNCTION pgqueue.doors(OUT kind text, OUT object text) RETURNS SETOF record
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select k.kind, unnest(k.functions || k.views)
      from (values
        ('producer', '{enqueue,enqueue_many,schema_version,clock,reads_all,own_roles}'::text[],
         '{own_jobs}'::text[]),
        ('worker', '{claim,extend,complete,fail,release,release_unfit,run_once,bury,reap,schema_version,sweep,claim_from,
                     claim_from_both,complete_many,fail_many,cancel_held,keep_held,ready_queues,fall_asleep,wake_up,
                     register_worker,namesake,still_here,deregister_worker,retire_worker,maintain}', '{}'),
        ('observer', '{schema_version,clock,reads_all,own_roles}', '{jobs,own_jobs,attempts,queues,workers}'),
        ('admin', '{enqueue,enqueue_many,bury,kick,kick_many,cancel,pause,resume,purge,evict,reap,maintain,schema_version,
                    clock,reads_all,own_roles}', '{jobs,own_jobs,attempts,queues,workers}')
      ) k(kind, functions, views)
$$;

COMMENT ON FUNCTION pgqueue.doors(OUT kind text, OUT object text) IS 'Which functions and views each kind of role is granted.';

CREATE FUNCTION pgqueue.drop_leases(leases bigint[]) RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
    with empty as materialized (
        select l.id from pgqueue.lease l
         where l.id = any (leases)
           and not exists (select from pgqueue.job j where j.id = any (l.job_ids) and j.lease_id = l.id offset 0)
           for update skip locked)
    delete from pgqueue.lease l using empty e where l.id = e.id
$$;

COMMENT ON FUNCTION pgqueue.drop_leases(leases bigint[]) IS 'Drops leases that hold no job any more.';

CREATE FUNCTION pgqueue.drop_partitions() RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '300ms'
    AS $_$
declare
    keep_from timestamptz;
    part      record;
    dropped   integer := 0;
begin
    select pgqueue.clock() - s.retention into keep_from from pgqueue.settings s;
    for part in
        select c.relname
          from pg_inherits i join pg_class c on c.oid = i.inhrelid
         where i.inhparent in ('pgqueue.attempt'::regclass, 'pgqueue.job_history'::regclass)
           and c.relname ~ '_\d{8}$'
           and to_date(right(c.relname, 8), 'YYYYMMDD') + 1 <= (keep_from at time zone 'UTC')::date
    loop
        execute format('drop table pgqueue.%I', part.relname);
        dropped := dropped + 1;
    end loop;
    delete from pgqueue.attempt_default where finished_at < keep_from;
    delete from pgqueue.job_history_default where finished_at < keep_from;
    delete from pgqueue.late_result where arrived_at < keep_from;
    return dropped;
end
$_$;

COMMENT ON FUNCTION pgqueue.drop_partitions() IS 'Drops finished jobs and attempts older than settings.retention.';

CREATE FUNCTION pgqueue.end_attempt(job pgqueue.job, outcome text, error jsonb, moment timestamp with time zone) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
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

COMMENT ON FUNCTION pgqueue.end_attempt(job pgqueue.job, outcome text, error jsonb, moment timestamp with time zone) IS 'Records how an attempt ended; returns the worker''s name.';

CREATE FUNCTION pgqueue.enqueue(task text, args jsonb DEFAULT '{}'::jsonb, queue text DEFAULT 'default'::text, priority integer DEFAULT 0, delay interval DEFAULT NULL::interval, run_at timestamp with time zone DEFAULT NULL::timestamp with time zone, unique_key text DEFAULT NULL::text, max_failures integer DEFAULT NULL::integer, timeout interval DEFAULT NULL::interval, headers jsonb DEFAULT '{}'::jsonb) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
declare
    moment timestamptz := pgqueue.clock();
    caller text := pgqueue.limited_caller();
    fault  text;
    job_id bigint;
begin
    queue := coalesce(queue, 'default');
    args := coalesce(args, '{}');
    if caller is not null then
        perform pgqueue.check_allowed(
            'producer', array_remove(array[queue, pgqueue.follow_up(headers) ->> 'queue'], null));
    end if;
    if num_nonnulls(delay, run_at, unique_key, max_failures, timeout) > 0 or priority <> 0 or headers <> '{}'
       or coalesce(length(task), 0) not between 1 and 500 or length(queue) not between 1 and 200
       or jsonb_typeof(args) <> 'object' then
        fault := pgqueue.fault_of(task, args, queue, priority, delay, run_at, unique_key, max_failures, timeout, headers);
        if fault is not null then
            perform pgqueue.reject(fault);
        end if;
    end if;
    -- A key that is taken needs no room: to enqueue again is safe in a full queue too.
    if (octet_length(args::text) > 1048576 or exists (select from pgqueue.queue q where q.name = enqueue.queue))
       and pgqueue.job_with_key(unique_key) is null then
        perform pgqueue.check_room(queue, octet_length(args::text), 1);
    end if;
    if unique_key is null then
        insert into pgqueue.job as j (queue, task, args, headers, priority, run_at, enqueued_at, max_failures, timeout,
                                      enqueued_by)
        values (enqueue.queue, enqueue.task, enqueue.args, coalesce(enqueue.headers, '{}'), coalesce(enqueue.priority, 0),
                greatest(moment, coalesce(enqueue.run_at, moment + coalesce(enqueue.delay, interval '0'))), moment,
                coalesce(enqueue.max_failures, 25), enqueue.timeout, caller)
        returning j.id into job_id;
        return job_id;
    end if;
    -- A conflicting insert waits for the other transaction: if that rolls back, ours goes in. The loop turns only
    -- where the other job ended between the two statements.
    loop
        insert into pgqueue.job as j (queue, task, args, headers, priority, run_at, enqueued_at, max_failures, timeout,
                                      unique_key, enqueued_by)
        values (enqueue.queue, enqueue.task, enqueue.args, coalesce(enqueue.headers, '{}'), coalesce(enqueue.priority, 0),
                greatest(moment, coalesce(enqueue.run_at, moment + coalesce(enqueue.delay, interval '0'))), moment,
                coalesce(enqueue.max_failures, 25), enqueue.timeout, enqueue.unique_key, caller)
        on conflict (unique_key) where unique_key is not null do nothing
        returning j.id into job_id;
        job_id := coalesce(job_id, pgqueue.job_with_key(unique_key));
        if job_id is not null then
            return job_id;
        end if;
    end loop;
end
$$;

COMMENT ON FUNCTION pgqueue.enqueue(task text, args jsonb, queue text, priority integer, delay interval, run_at timestamp with time zone, unique_key text, max_failures integer, timeout interval, headers jsonb) IS 'Adds a job in the caller''s transaction; returns its id.';

CREATE FUNCTION pgqueue.enqueue_many(jobs jsonb) RETURNS SETOF bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
declare
    moment timestamptz := pgqueue.clock();
    caller text := pgqueue.limited_caller();
    added  bigint[];
    ids    bigint[];
    r      record;
begin
    if jsonb_typeof(jobs) is distinct from 'array' then
        perform pgqueue.reject(format('jobs is a JSON %s: give an array of objects, such as [{"task": "send"}]',
                                      coalesce(jsonb_typeof(jobs), 'null')));
    end if;
    if caller is not null then
        perform pgqueue.check_allowed('producer', array(
            select distinct u.queue
              from jsonb_array_elements(jobs) as e(job),
                   unnest(array[coalesce(e.job ->> 'queue', 'default'), pgqueue.follow_up(e.job -> 'headers') ->> 'queue'])
                       as u(queue)
             where u.queue is not null));
    end if;
    if exists (select from pgqueue.queue q where q.max_waiting is not null) then
        perform pgqueue.check_room(coalesce(e.job ->> 'queue', 'default'), 0, count(*))
           from jsonb_array_elements(jobs) as e(job)
          where e.job ->> 'unique_key' is null
          group by coalesce(e.job ->> 'queue', 'default');
    end if;
    begin
        with new as (
            insert into pgqueue.job (queue, task, args, headers, priority, run_at, enqueued_at, max_failures, timeout,
                                     enqueued_by)
            select coalesce(j.queue, 'default'), j.task, coalesce(j.args, '{}'), coalesce(j.headers, '{}'),
                   coalesce(j.priority, 0),
                   greatest(moment, coalesce(j.run_at, moment + coalesce(j.delay, interval '0'))), moment,
                   coalesce(j.max_failures, 25), j.timeout, caller
              from jsonb_array_elements(jobs) with ordinality as e(job, position)
             cross join lateral jsonb_to_record(e.job) as j(task text, args jsonb, queue text, priority integer,
                   delay interval, run_at timestamptz, unique_key text, max_failures integer, timeout interval, headers jsonb)
              left join pgqueue.queue q on q.name = coalesce(j.queue, 'default')
             where j.unique_key is null
               and e.job - '{task,args,queue,priority,delay,run_at,unique_key,max_failures,timeout,headers}'::text[] = '{}'
               and octet_length(coalesce(j.args, '{}')::text) <= coalesce(q.max_args_bytes, 1048576)
               and pgqueue.fault_of(j.task, j.args, j.queue, j.priority, j.delay, j.run_at, j.unique_key, j.max_failures,
                                    j.timeout, j.headers) is null
             order by e.position
            returning id)
        select coalesce(array_agg(n.id order by n.id), '{}') into added from new n;
    exception when data_exception then
        perform pgqueue.check_jobs(jobs);
        raise;
    end;
    if cardinality(added) = jsonb_array_length(jobs) then
        return query select * from unnest(added);
        return;
    end if;
    perform pgqueue.check_jobs(jobs);
    select array_agg(case when p.is_plain then added[p.rank] end order by p.position) into ids
      from (select e.position, e.job ->> 'unique_key' is null as is_plain,
                   count(*) filter (where e.job ->> 'unique_key' is null) over (order by e.position) as rank
              from jsonb_array_elements(jobs) with ordinality as e(job, position)) p;
    for r in
        select e.position, j.*
          from jsonb_array_elements(jobs) with ordinality as e(job, position),
               jsonb_to_record(e.job) as j(task text, args jsonb, queue text, priority integer, delay interval,
                   run_at timestamptz, unique_key text, max_failures integer, timeout interval, headers jsonb)
         where j.unique_key is not null
         order by j.unique_key, e.position
    loop
        ids[r.position] := pgqueue.enqueue(r.task, r.args, r.queue, r.priority, r.delay, r.run_at, r.unique_key,
                                           r.max_failures, r.timeout, r.headers);
    end loop;
    return query select * from unnest(ids);
end
$$;

COMMENT ON FUNCTION pgqueue.enqueue_many(jobs jsonb) IS 'Adds an array of jobs, objects with the keys of enqueue; returns their ids in order.';

CREATE FUNCTION pgqueue.entomb(job pgqueue.job, reason text, error jsonb, buried_by text, moment timestamp with time zone) RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

COMMENT ON FUNCTION pgqueue.entomb(job pgqueue.job, reason text, error jsonb, buried_by text, moment timestamp with time zone) IS 'Puts a job that has left pgqueue.job into dead_letter, and enqueues the job that is to follow.';

CREATE FUNCTION pgqueue.evict(worker text) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
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

COMMENT ON FUNCTION pgqueue.evict(worker text) IS 'A worker retires: what it holds is lost to it, and ready for others; returns how many jobs.';

CREATE TABLE pgqueue.dead_letter (
    id bigint NOT NULL,
    run_at timestamp with time zone NOT NULL,
    enqueued_at timestamp with time zone NOT NULL,
    buried_at timestamp with time zone NOT NULL,
    attempt integer NOT NULL,
    failures integer NOT NULL,
    losses integer NOT NULL,
    max_failures integer NOT NULL,
    max_losses integer NOT NULL,
    priority smallint NOT NULL,
    queue text NOT NULL,
    task text NOT NULL,
    args jsonb NOT NULL,
    headers jsonb NOT NULL,
    timeout interval,
    unique_key text,
    reason text NOT NULL,
    error jsonb,
    buried_by text NOT NULL,
    enqueued_by text
);

COMMENT ON TABLE pgqueue.dead_letter IS 'Buried jobs, whole; they wait for a human, who kicks or cancels them.';

CREATE FUNCTION pgqueue.exhume(dead pgqueue.dead_letter) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
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

COMMENT ON FUNCTION pgqueue.exhume(dead pgqueue.dead_letter) IS 'Moves one dead letter back to job.';

CREATE FUNCTION pgqueue.extend(id bigint, attempt integer, lease interval DEFAULT '00:00:30'::interval) RETURNS timestamp with time zone
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
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

COMMENT ON FUNCTION pgqueue.extend(id bigint, attempt integer, lease interval) IS 'The lease of one job ends this long from now; returns when.';

CREATE FUNCTION pgqueue.fail(id bigint, attempt integer, error jsonb, retry_in interval DEFAULT NULL::interval) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
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

COMMENT ON FUNCTION pgqueue.fail(id bigint, attempt integer, error jsonb, retry_in interval) IS 'A worker failed: the job is retried (ready), buried, or cancelled where that was asked for.';

CREATE FUNCTION pgqueue.fail_many(ids bigint[], attempts integer[], errors jsonb, retry_ins double precision[], leases bigint[]) RETURNS SETOF bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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

COMMENT ON FUNCTION pgqueue.fail_many(ids bigint[], attempts integer[], errors jsonb, retry_ins double precision[], leases bigint[]) IS 'Fails a batch; returns the ids that were refused.';

CREATE FUNCTION pgqueue.fall_asleep(worker text, queues text[], globs text[] DEFAULT '{}'::text[]) RETURNS interval
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

COMMENT ON FUNCTION pgqueue.fall_asleep(worker text, queues text[], globs text[]) IS 'Marks a worker asleep; returns how long until the next due job.';

CREATE FUNCTION pgqueue.follow_up(headers jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE
    RETURN CASE WHEN (((length(((headers -> 'on_buried'::text) ->> 'task'::text)) >= 1) AND (length(((headers -> 'on_buried'::text) ->> 'task'::text)) <= 500)) AND ((length(((headers -> 'on_buried'::text) ->> 'queue'::text)) >= 1) AND (length(((headers -> 'on_buried'::text) ->> 'queue'::text)) <= 200))) THEN (headers -> 'on_buried'::text) ELSE NULL::jsonb END;

COMMENT ON FUNCTION pgqueue.follow_up(headers jsonb) IS 'The task and queue of the job that follows a burial, from the header on_buried.';

CREATE FUNCTION pgqueue.fault_of(task text, args jsonb, queue text, priority integer, delay interval, run_at timestamp with time zone, unique_key text, max_failures integer, timeout interval, headers jsonb) RETURNS text
    LANGUAGE sql STABLE
    RETURN CASE WHEN ((task IS NULL) OR (task = ''::text)) THEN 'task is empty: name the task to run'::text WHEN (length(task) > 500) THEN format('task has %s characters: at most 500 fit'::text, length(task)) WHEN (queue = ''::text) THEN 'queue is empty: name a queue, such as ''default'''::text WHEN (length(queue) > 200) THEN format('queue has %s characters: at most 200 fit'::text, length(queue)) WHEN (jsonb_typeof(args) <> 'object'::text) THEN format('args is a JSON %s: give an object, such as {"user_id": 7}'::text, jsonb_typeof(args)) WHEN (jsonb_typeof(headers) <> 'object'::text) THEN format('headers is a JSON %s: give an object, such as {"trace": "a1"}'::text, jsonb_typeof(headers)) WHEN (octet_length((headers)::text) > 65536) THEN format('headers has %s bytes: at most 65536 fit; put the data into args'::text, octet_length((headers)::text)) WHEN ((headers ? 'on_buried'::text) AND (pgqueue.follow_up(headers) IS NULL)) THEN format('the header on_buried is %s: give the job that is to follow a burial, such as {"task": "mail_operator", "queue": "default"}'::text, "left"((headers ->> 'on_buried'::text), 200)) WHEN ((priority < '-32768'::integer) OR (priority > 32767)) THEN format('priority is %s: give a whole number from -32768 (first) to 32767 (last)'::text, priority) WHEN ((delay IS NOT NULL) AND (run_at IS NOT NULL)) THEN 'delay and run_at are both given: give one of them'::text WHEN ((delay < '00:00:00'::interval) OR (delay > '100 years'::interval)) THEN format('delay is %s: give a duration from 0 to 100 years'::text, delay) WHEN ((NOT isfinite(run_at)) OR (run_at > '9999-12-30 00:00:00+00'::timestamp with time zone)) THEN format('run_at is %s: give a date before the end of the year 9999'::text, run_at) WHEN (max_failures < 0) THEN format('max_failures is %s: give 0 (bury at once) or more'::text, max_failures) WHEN ((timeout <= '00:00:00'::interval) OR (timeout > '100 years'::interval)) THEN format('timeout is %s: give a duration above 0 and up to 100 years, or null for none'::text, timeout) WHEN (unique_key = ''::text) THEN 'unique_key is empty: give a key, or null for none'::text WHEN (octet_length(unique_key) > 2000) THEN format('unique_key has %s bytes: at most 2000 fit; hash it'::text, octet_length(unique_key)) ELSE NULL::text END;

COMMENT ON FUNCTION pgqueue.fault_of(task text, args jsonb, queue text, priority integer, delay interval, run_at timestamp with time zone, unique_key text, max_failures integer, timeout interval, headers jsonb) IS 'What is wrong with a new job, and the cure; null where nothing is.';

CREATE FUNCTION pgqueue.grant_role(kind text, role text, queues text[] DEFAULT NULL::text[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
begin
    perform pgqueue.check_role(grant_role.kind, grant_role.role, queues);
    insert into pgqueue.role_grant (role, kind, queue)
    select grant_role.role, grant_role.kind, q.queue from unnest(coalesce(queues, '{*}')) as q(queue)
    on conflict do nothing;
    perform pgqueue.apply_grants(grant_role.role);
    perform pgqueue.note('grant', null, null, jsonb_build_object('kind', kind, 'role', role, 'queues', queues));
end
$$;

COMMENT ON FUNCTION pgqueue.grant_role(kind text, role text, queues text[]) IS 'A role becomes a producer, worker, observer or admin, of these queues or of all.';

CREATE FUNCTION pgqueue.hint(channel text, payload text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if pg_notification_queue_usage() < 0.5 then
        perform pg_notify(channel, payload);
    end if;
end
$$;

COMMENT ON FUNCTION pgqueue.hint(channel text, payload text) IS 'NOTIFY, unless the server''s queue of notifications is half full.';

CREATE FUNCTION pgqueue.is_allowed(kinds text[], queue text) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
declare
    caller text := pgqueue.limited_caller();
begin
    return caller is null or exists (
        select from pgqueue.role_grant g join pg_catalog.pg_roles r on r.rolname = g.role
         where g.kind = any (kinds) and g.queue in ('*', is_allowed.queue)
           and pg_has_role(caller::name, r.oid, 'usage'));
end
$$;

COMMENT ON FUNCTION pgqueue.is_allowed(kinds text[], queue text) IS 'Whether the calling role was granted one of these kinds for this queue.';

CREATE FUNCTION pgqueue.job_with_key(unique_key text) RETURNS bigint
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$ select j.id from pgqueue.job j where j.unique_key = job_with_key.unique_key $$;

COMMENT ON FUNCTION pgqueue.job_with_key(unique_key text) IS 'The live job that has this unique key.';

CREATE FUNCTION pgqueue.keep_held(ids bigint[], attempts integer[], lease interval) RETURNS TABLE(id bigint, attempt integer, verdict text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    AS $$
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

COMMENT ON FUNCTION pgqueue.keep_held(ids bigint[], attempts integer[], lease interval) IS 'Extends the leases of these attempts; returns those that are lost, or to be cancelled.';

CREATE FUNCTION pgqueue.keep_late(refused bigint[], ids bigint[], attempts integer[], results jsonb, errors jsonb, moment timestamp with time zone) RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
    insert into pgqueue.late_result (job_id, attempt, worker, arrived_at, result, error)
    select a.job_id, a.attempt, a.worker, moment, nullif(results -> r.place, 'null'), nullif(errors -> r.place, 'null')
      from (select u.id, width_bucket(u.id, ids) - 1 as place from unnest(refused) as u(id)) r
      join pgqueue.attempt a on a.job_id = r.id and a.attempt = attempts[r.place + 1] and a.outcome = 'lost'
    on conflict (job_id, attempt) do nothing
$$;

COMMENT ON FUNCTION pgqueue.keep_late(refused bigint[], ids bigint[], attempts integer[], results jsonb, errors jsonb, moment timestamp with time zone) IS 'Keeps the results and errors of attempts that were lost, to be looked at.';

CREATE FUNCTION pgqueue.kick(id bigint) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
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

COMMENT ON FUNCTION pgqueue.kick(id bigint) IS 'A buried job is ready again, under its id.';

CREATE FUNCTION pgqueue.kick_many(queue text, max_jobs integer DEFAULT 1) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
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

COMMENT ON FUNCTION pgqueue.kick_many(queue text, max_jobs integer) IS 'Kicks the oldest buried jobs of a queue; returns how many.';

CREATE FUNCTION pgqueue.limited_caller() RETURNS text
    LANGUAGE sql STABLE
    RETURN CASE WHEN (NOT pg_has_role((COALESCE(NULLIF(current_setting('role'::text), 'none'::text), (SESSION_USER)::text))::name, CURRENT_USER, 'usage'::text)) THEN COALESCE(NULLIF(current_setting('role'::text), 'none'::text), (SESSION_USER)::text) ELSE NULL::text END;

COMMENT ON FUNCTION pgqueue.limited_caller() IS 'The role that calls, where it may not do everything; else null.';

CREATE FUNCTION pgqueue.maintain() RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
begin
    if not pg_try_advisory_xact_lock(hashtextextended('pgqueue.maintain', 0)) then
        return false;
    end if;
    delete from pgqueue.asleep a
     where not exists (select from pgqueue.worker w
                        where w.name = a.worker and w.last_seen > pgqueue.clock() - interval '30 s');
    delete from pgqueue.worker w where w.last_seen < pgqueue.clock() - interval '1 day';
    begin
        perform pgqueue.make_partitions();
    exception when lock_not_available then
        raise warning 'no partitions made, somebody reads all of history: %', sqlerrm;
    end;
    begin
        perform pgqueue.drop_partitions();
    exception when lock_not_available then
        raise warning 'no partitions dropped, somebody reads history: %', sqlerrm;
    end;
    return true;
end
$$;

COMMENT ON FUNCTION pgqueue.maintain() IS 'Partitions, retention and tidying; false where somebody else is at it.';

CREATE FUNCTION pgqueue.make_partitions(days_ahead integer DEFAULT 3) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "DateStyle" TO 'ISO, YMD'
    SET "TimeZone" TO 'UTC'
    SET lock_timeout TO '300ms'
    AS $$
declare
    today  date := (pgqueue.clock() at time zone 'UTC')::date;
    parent text;
    name   text;
    starts timestamptz;
    ends   timestamptz;
    made   integer := 0;
begin
    foreach parent in array '{attempt,job_history}'::text[] loop
        for n in 0..days_ahead loop
            name := parent || to_char(today + n, '"_"YYYYMMDD');
            continue when to_regclass('pgqueue.' || quote_ident(name)) is not null;
            starts := (today + n)::timestamp at time zone 'UTC';
            ends := (today + n + 1)::timestamp at time zone 'UTC';
            -- Or what commits into the default partition between the move and the attaching would make that fail:
            -- always, where jobs finish all the time.
            execute format('lock table pgqueue.%I in share row exclusive mode', parent || '_default');
            execute format('create table pgqueue.%I (like pgqueue.%I including all)', name, parent);
            execute format('with moved as (delete from pgqueue.%I where finished_at >= %L and finished_at < %L returning *) '
                           'insert into pgqueue.%I select * from moved', parent || '_default', starts, ends, name);
            execute format('alter table pgqueue.%I attach partition pgqueue.%I for values from (%L) to (%L)',
                           parent, name, starts, ends);
            made := made + 1;
        end loop;
    end loop;
    return made;
end
$$;

COMMENT ON FUNCTION pgqueue.make_partitions(days_ahead integer) IS 'Makes the partitions of today and the days ahead; returns how many.';

CREATE FUNCTION pgqueue.namesake(name text, host text, OUT pid integer, OUT session uuid) RETURNS record
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$ select w.pid, w.session from pgqueue.worker w where w.name = namesake.name and w.host = namesake.host $$;

COMMENT ON FUNCTION pgqueue.namesake(name text, host text, OUT pid integer, OUT session uuid) IS 'Who has this name on this host: process and session.';

CREATE FUNCTION pgqueue.next_due(queue text, moment timestamp with time zone) RETURNS timestamp with time zone
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    SET enable_bitmapscan TO 'off'
    AS $$
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

COMMENT ON FUNCTION pgqueue.next_due(queue text, moment timestamp with time zone) IS 'When the next scheduled job of a queue is due.';

CREATE FUNCTION pgqueue.note(verb text, queue text, job_id bigint, detail jsonb) RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    insert into pgqueue.audit (at, actor, verb, queue, job_id, detail)
    values (pgqueue.clock(), session_user, verb, queue, job_id, coalesce(detail, '{}'))
$$;

COMMENT ON FUNCTION pgqueue.note(verb text, queue text, job_id bigint, detail jsonb) IS 'Writes who did what into audit.';

CREATE FUNCTION pgqueue.own_roles() RETURNS text[]
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select array(select r.rolname::text from pg_catalog.pg_roles r
                  where pg_has_role(coalesce(pgqueue.limited_caller(), session_user)::name, r.oid, 'usage'))
$$;

COMMENT ON FUNCTION pgqueue.own_roles() IS 'The roles whose jobs the calling role has enqueued: itself, and those it is a member of.';

CREATE FUNCTION pgqueue.pause(queue text, duration interval DEFAULT NULL::interval) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

COMMENT ON FUNCTION pgqueue.pause(queue text, duration interval) IS 'No job of the queue is claimed until then, or until resume.';

CREATE FUNCTION pgqueue.purge(queue text) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

COMMENT ON FUNCTION pgqueue.purge(queue text) IS 'Removes waiting jobs, which go to history as cancelled; returns how many.';

CREATE FUNCTION pgqueue.reads_all() RETURNS boolean
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$ select pgqueue.is_allowed('{observer,admin}', '*') $$;

COMMENT ON FUNCTION pgqueue.reads_all() IS 'Whether the calling role may read every job.';

CREATE FUNCTION pgqueue.ready_queues() RETURNS SETOF text
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    SET enable_bitmapscan TO 'off'
    AS $$
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

COMMENT ON FUNCTION pgqueue.ready_queues() IS 'The names of the queues that have ready jobs and are the caller''s.';

CREATE FUNCTION pgqueue.reap(max_jobs integer DEFAULT 1000) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

COMMENT ON FUNCTION pgqueue.reap(max_jobs integer) IS 'Takes back the jobs of expired leases: ready again at once, or buried; returns how many.';

CREATE FUNCTION pgqueue.refuse(id bigint, verb text, attempt integer DEFAULT NULL::integer) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

COMMENT ON FUNCTION pgqueue.refuse(id bigint, verb text, attempt integer) IS 'Raises PQ409 or PQ404 with the reason.';

CREATE FUNCTION pgqueue.register_worker(name text, host text, pid integer, session uuid, queues text[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
declare
    moment timestamptz := pgqueue.clock();
    other  pgqueue.worker;
begin
    if coalesce(register_worker.name, '') = '' then
        perform pgqueue.reject('the worker''s name is empty: give it one');
    end if;
    insert into pgqueue.worker as w (name, host, pid, session, state, queues, started_at, last_seen)
    values (register_worker.name, register_worker.host, register_worker.pid, register_worker.session, 'running',
            register_worker.queues, moment, moment)
    on conflict (name) do update
       set host = excluded.host, pid = excluded.pid, session = excluded.session, state = excluded.state,
           queues = excluded.queues, started_at = excluded.started_at, last_seen = excluded.last_seen, reason = null
     where w.session = excluded.session
        or w.state = 'retired'
        or w.last_seen < moment - interval '30 s'
        or w.host = excluded.host and w.pid = excluded.pid;
    if not found then
        select w.* into other from pgqueue.worker w where w.name = register_worker.name;
        raise exception using errcode = 'PQ409', message = format(
            'worker "%s" is running already on host %s as process %s, seen %s: stop it, or choose another --name',
            other.name, other.host, other.pid, other.last_seen);
    end if;
end
$$;

COMMENT ON FUNCTION pgqueue.register_worker(name text, host text, pid integer, session uuid, queues text[]) IS 'A worker starts; PQ409 where its name is in use.';

CREATE FUNCTION pgqueue.reject(message text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    raise exception using errcode = 'PQ422', message = reject.message;
end
$$;

COMMENT ON FUNCTION pgqueue.reject(message text) IS 'Raises PQ422: bad input.';

CREATE FUNCTION pgqueue.release(id bigint, attempt integer, delay interval DEFAULT '00:00:00'::interval, priority integer DEFAULT NULL::integer) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
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

COMMENT ON FUNCTION pgqueue.release(id bigint, attempt integer, delay interval, priority integer) IS 'A worker gives a job back unharmed; counts as no failure.';

CREATE FUNCTION pgqueue.release_unfit(id bigint, attempt integer, error jsonb) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
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

COMMENT ON FUNCTION pgqueue.release_unfit(id bigint, attempt integer, error jsonb) IS 'A worker gives a job back because of its own state: ready for others, buried, or cancelled.';

CREATE FUNCTION pgqueue.resume(queue text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

COMMENT ON FUNCTION pgqueue.resume(queue text) IS 'Ends a pause; nothing happens where there is none.';

CREATE FUNCTION pgqueue.retire_worker(name text, session uuid, reason text) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    delete from pgqueue.asleep a where a.worker = retire_worker.name
       and exists (select from pgqueue.worker w where w.name = retire_worker.name and w.session = retire_worker.session);
    update pgqueue.worker w
       set state = 'retired', last_seen = pgqueue.clock(),
           reason = case when w.state = 'retired' then w.reason else retire_worker.reason end
     where w.name = retire_worker.name and w.session = retire_worker.session;
$$;

COMMENT ON FUNCTION pgqueue.retire_worker(name text, session uuid, reason text) IS 'A worker stops because it is unfit for work.';

CREATE FUNCTION pgqueue.revoke_role(kind text, role text, queues text[] DEFAULT NULL::text[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
begin
    perform pgqueue.check_role(revoke_role.kind, revoke_role.role, queues);
    delete from pgqueue.role_grant g
     where g.role = revoke_role.role and g.kind = revoke_role.kind and (queues is null or g.queue = any (queues));
    if not found then
        perform pgqueue.reject(format('role "%s" was not granted %s%s: nothing is revoked', role, kind,
                                      coalesce(' of ' || array_to_string(queues, ', '), '')));
    end if;
    perform pgqueue.apply_grants(revoke_role.role);
    perform pgqueue.note('revoke', null, null, jsonb_build_object('kind', kind, 'role', role, 'queues', queues));
end
$$;

COMMENT ON FUNCTION pgqueue.revoke_role(kind text, role text, queues text[]) IS 'Takes back what grant_role gave.';

CREATE FUNCTION pgqueue.run_once(id bigint, attempt integer) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
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

COMMENT ON FUNCTION pgqueue.run_once(id bigint, attempt integer) IS 'The job is buried unless this attempt succeeds.';

CREATE FUNCTION pgqueue.schema_version() RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$ select 8 $$;

COMMENT ON FUNCTION pgqueue.schema_version() IS 'The number of the newest revision applied.';

CREATE FUNCTION pgqueue.settle_cancelled(job pgqueue.job, outcome text, error jsonb, moment timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
begin
    delete from pgqueue.job j where j.id = (job).id;
    perform pgqueue.archive(job, 'cancelled', null, (job).cancel_reason,
                            pgqueue.end_attempt(job, outcome, error, moment), moment);
end
$$;

COMMENT ON FUNCTION pgqueue.settle_cancelled(job pgqueue.job, outcome text, error jsonb, moment timestamp with time zone) IS 'Moves a running job whose cancellation was asked for into history.';

CREATE FUNCTION pgqueue.still_here(name text, session uuid, state text) RETURNS text
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    update pgqueue.worker w
       set last_seen = pgqueue.clock(), state = case when w.state = 'retired' then w.state else still_here.state end
     where w.name = still_here.name and w.session = still_here.session
    returning w.state
$$;

COMMENT ON FUNCTION pgqueue.still_here(name text, session uuid, state text) IS 'Presence, every few seconds. Returns the worker''s state: retired, if it was evicted, or null where the row is another''s or gone.';

CREATE FUNCTION pgqueue.sweep(queues text[], max_jobs integer, lease interval, worker text) RETURNS SETOF pgqueue.claimed_with_lease
    LANGUAGE plpgsql SECURITY DEFINER ROWS 100
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
begin
    perform pgqueue.reap();
    return query select * from pgqueue.claim_from(queues, max_jobs, lease, worker);
end
$$;

COMMENT ON FUNCTION pgqueue.sweep(queues text[], max_jobs integer, lease interval, worker text) IS 'Reaps, and claims from the start of each queue.';

CREATE FUNCTION pgqueue.take_back(leases bigint[], max_jobs integer, moment timestamp with time zone) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    AS $$
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

COMMENT ON FUNCTION pgqueue.take_back(leases bigint[], max_jobs integer, moment timestamp with time zone) IS 'The jobs of these leases are lost: ready again, buried or cancelled; returns how many.';

CREATE FUNCTION pgqueue.wake(queue text, run_at timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
begin
    if exists (select from pgqueue.asleep a
                where a.next_run_at > wake.run_at and (a.queue = wake.queue or wake.queue like a.queue escape '')) then
        perform pgqueue.hint('pgqueue', wake.queue);
    end if;
end
$$;

COMMENT ON FUNCTION pgqueue.wake(queue text, run_at timestamp with time zone) IS 'NOTIFY pgqueue with the queue''s name, if a sleeper needs it.';

CREATE FUNCTION pgqueue.wake_for_new_jobs() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if exists (select from pgqueue.asleep) then
        perform pgqueue.wake(n.queue, min(n.run_at)) from new_jobs n where n.state = 'ready' group by n.queue;
    end if;
    return null;
end
$$;

COMMENT ON FUNCTION pgqueue.wake_for_new_jobs() IS 'Statement trigger on job: the gated wake-up.';

CREATE FUNCTION pgqueue.wake_up(worker text) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$ delete from pgqueue.asleep a where a.worker = wake_up.worker $$;

COMMENT ON FUNCTION pgqueue.wake_up(worker text) IS 'The worker is busy: nobody needs to notify it.';

CREATE UNLOGGED TABLE pgqueue.asleep (
    worker text NOT NULL,
    queue text NOT NULL,
    next_run_at timestamp with time zone NOT NULL
)
WITH (fillfactor='50');

COMMENT ON TABLE pgqueue.asleep IS 'Who sleeps, and the next run_at it knows of: only something earlier needs to wake it.';

COMMENT ON COLUMN pgqueue.asleep.queue IS 'A queue''s name, or a LIKE pattern without escapes, which may match a little more.';

CREATE TABLE pgqueue.attempt (
    job_id bigint NOT NULL,
    started_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone NOT NULL,
    attempt integer NOT NULL,
    outcome pgqueue.outcome NOT NULL,
    worker text NOT NULL,
    error jsonb
)
PARTITION BY RANGE (finished_at);

COMMENT ON TABLE pgqueue.attempt IS 'One row per attempt, written once, when it ends.';

CREATE TABLE pgqueue.attempt_default (
    job_id bigint CONSTRAINT attempt_job_id_not_null NOT NULL,
    started_at timestamp with time zone CONSTRAINT attempt_started_at_not_null NOT NULL,
    finished_at timestamp with time zone CONSTRAINT attempt_finished_at_not_null NOT NULL,
    attempt integer CONSTRAINT attempt_attempt_not_null NOT NULL,
    outcome pgqueue.outcome CONSTRAINT attempt_outcome_not_null NOT NULL,
    worker text CONSTRAINT attempt_worker_not_null NOT NULL,
    error jsonb
);

CREATE TABLE pgqueue.late_result (
    job_id bigint NOT NULL,
    attempt integer NOT NULL,
    worker text NOT NULL,
    arrived_at timestamp with time zone NOT NULL,
    result jsonb,
    error jsonb
);

COMMENT ON TABLE pgqueue.late_result IS 'What an attempt brought after its job was taken from it: refused, and kept to be looked at.';

CREATE TABLE pgqueue.lease (
    id bigint NOT NULL,
    claimed_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    worker text NOT NULL,
    job_ids bigint[] NOT NULL
)
WITH (fillfactor='50', toast_tuple_target='8160', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='500', autovacuum_vacuum_cost_delay='0');

COMMENT ON TABLE pgqueue.lease IS 'Who holds which jobs until when; a job belongs to it only while job.lease_id agrees.';

CREATE VIEW pgqueue.attempts AS
 SELECT a.job_id,
    a.attempt,
    (a.outcome)::text AS outcome,
    a.worker,
    a.started_at,
    a.finished_at,
    a.error,
    r.result AS late_result,
    r.error AS late_error
   FROM (pgqueue.attempt a
     LEFT JOIN pgqueue.late_result r ON (((r.job_id = a.job_id) AND (r.attempt = a.attempt))))
UNION ALL
 SELECT j.id AS job_id,
    (j.attempt)::integer AS attempt,
    NULL::text AS outcome,
    l.worker,
    l.claimed_at AS started_at,
    NULL::timestamp with time zone AS finished_at,
    NULL::jsonb AS error,
    NULL::jsonb AS late_result,
    NULL::jsonb AS late_error
   FROM (pgqueue.job j
     JOIN pgqueue.lease l ON ((l.id = j.lease_id)))
  WHERE ((j.state)::text = 'running'::text);

COMMENT ON VIEW pgqueue.attempts IS 'Every attempt; a running one has no outcome yet.';

CREATE TABLE pgqueue.audit (
    id bigint NOT NULL,
    at timestamp with time zone NOT NULL,
    actor text NOT NULL,
    verb text NOT NULL,
    queue text,
    job_id bigint,
    detail jsonb DEFAULT '{}'::jsonb NOT NULL
);

COMMENT ON TABLE pgqueue.audit IS 'What operators did: bury, kick, cancel, pause, resume, purge.';

ALTER TABLE pgqueue.audit ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME pgqueue.audit_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE pgqueue.job_history (
    id bigint NOT NULL,
    run_at timestamp with time zone NOT NULL,
    enqueued_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone NOT NULL,
    attempt integer NOT NULL,
    failures integer NOT NULL,
    losses integer NOT NULL,
    priority smallint NOT NULL,
    state pgqueue.final_state NOT NULL,
    queue text NOT NULL,
    task text NOT NULL,
    args jsonb NOT NULL,
    headers jsonb NOT NULL,
    result jsonb,
    reason text,
    worker text,
    enqueued_by text
)
PARTITION BY RANGE (finished_at);

COMMENT ON TABLE pgqueue.job_history IS 'Finished jobs with their results, for settings.retention.';

CREATE TABLE pgqueue.job_history_default (
    id bigint CONSTRAINT job_history_id_not_null NOT NULL,
    run_at timestamp with time zone CONSTRAINT job_history_run_at_not_null NOT NULL,
    enqueued_at timestamp with time zone CONSTRAINT job_history_enqueued_at_not_null NOT NULL,
    finished_at timestamp with time zone CONSTRAINT job_history_finished_at_not_null NOT NULL,
    attempt integer CONSTRAINT job_history_attempt_not_null NOT NULL,
    failures integer CONSTRAINT job_history_failures_not_null NOT NULL,
    losses integer CONSTRAINT job_history_losses_not_null NOT NULL,
    priority smallint CONSTRAINT job_history_priority_not_null NOT NULL,
    state pgqueue.final_state CONSTRAINT job_history_state_not_null NOT NULL,
    queue text CONSTRAINT job_history_queue_not_null NOT NULL,
    task text CONSTRAINT job_history_task_not_null NOT NULL,
    args jsonb CONSTRAINT job_history_args_not_null NOT NULL,
    headers jsonb CONSTRAINT job_history_headers_not_null NOT NULL,
    result jsonb,
    reason text,
    worker text,
    enqueued_by text
);

ALTER TABLE pgqueue.job ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME pgqueue.job_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE VIEW pgqueue.jobs AS
 SELECT j.id,
    (j.queue)::text AS queue,
    (j.task)::text AS task,
        CASE
            WHEN (((j.state)::text = 'ready'::text) AND ((j.run_at)::timestamp with time zone > pgqueue.clock())) THEN 'scheduled'::text
            ELSE (j.state)::text
        END AS state,
    j.priority,
    (j.run_at)::timestamp with time zone AS run_at,
    (j.attempt)::integer AS attempt,
    (j.failures)::integer AS failures,
    (j.losses)::integer AS losses,
    (j.args)::jsonb AS args,
    (j.headers)::jsonb AS headers,
    NULL::jsonb AS result,
    j.cancel_reason AS reason,
    (j.enqueued_at)::timestamp with time zone AS enqueued_at,
    NULL::timestamp with time zone AS finished_at,
    l.worker,
    l.expires_at AS lease_expires_at,
    j.unique_key,
    j.cancel_requested_at,
    j.enqueued_by
   FROM (pgqueue.job j
     LEFT JOIN pgqueue.lease l ON ((l.id = j.lease_id)))
UNION ALL
 SELECT d.id,
    d.queue,
    d.task,
    'buried'::text AS state,
    d.priority,
    d.run_at,
    d.attempt,
    d.failures,
    d.losses,
    d.args,
    d.headers,
    NULL::jsonb AS result,
    d.reason,
    d.enqueued_at,
    NULL::timestamp with time zone AS finished_at,
    NULL::text AS worker,
    NULL::timestamp with time zone AS lease_expires_at,
    d.unique_key,
    NULL::timestamp with time zone AS cancel_requested_at,
    d.enqueued_by
   FROM pgqueue.dead_letter d
UNION ALL
 SELECT h.id,
    h.queue,
    h.task,
    (h.state)::text AS state,
    h.priority,
    h.run_at,
    h.attempt,
    h.failures,
    h.losses,
    h.args,
    h.headers,
    h.result,
    h.reason,
    h.enqueued_at,
    h.finished_at,
    h.worker,
    NULL::timestamp with time zone AS lease_expires_at,
    NULL::text AS unique_key,
    NULL::timestamp with time zone AS cancel_requested_at,
    h.enqueued_by
   FROM pgqueue.job_history h;

COMMENT ON VIEW pgqueue.jobs IS 'Every job, live, buried and finished.';

ALTER TABLE pgqueue.lease ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME pgqueue.lease_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE VIEW pgqueue.own_jobs WITH (security_barrier='true') AS
 SELECT id,
    queue,
    task,
    state,
    priority,
    run_at,
    attempt,
    failures,
    losses,
    args,
    headers,
    result,
    reason,
    enqueued_at,
    finished_at,
    worker,
    lease_expires_at,
    unique_key,
    cancel_requested_at,
    enqueued_by
   FROM pgqueue.jobs j
  WHERE (( SELECT pgqueue.reads_all() AS reads_all) OR (enqueued_by = ANY (( SELECT pgqueue.own_roles() AS own_roles)::text[])));

COMMENT ON VIEW pgqueue.own_jobs IS 'The jobs that the reader has enqueued; all jobs, for whoever may read them all.';

CREATE TABLE pgqueue.queue (
    name pgqueue.queue_name NOT NULL,
    paused_until timestamp with time zone,
    max_args_bytes integer DEFAULT 1048576 NOT NULL,
    max_waiting integer,
    CONSTRAINT queue_max_args_bytes_check CHECK ((max_args_bytes > 0)),
    CONSTRAINT queue_max_waiting_check CHECK ((max_waiting > 0))
);

COMMENT ON TABLE pgqueue.queue IS 'Settings of those queues that have any; a queue needs no row here.';

CREATE VIEW pgqueue.queues AS
 WITH live AS (
         SELECT j.queue,
            count(*) FILTER (WHERE (((j.state)::text = 'ready'::text) AND ((j.run_at)::timestamp with time zone <= c.moment))) AS ready,
            count(*) FILTER (WHERE (((j.state)::text = 'ready'::text) AND ((j.run_at)::timestamp with time zone > c.moment))) AS scheduled,
            count(*) FILTER (WHERE ((j.state)::text = 'running'::text)) AS running,
            count(*) FILTER (WHERE ((j.state)::text = 'blocked'::text)) AS blocked,
            EXTRACT(epoch FROM max((c.moment - (j.run_at)::timestamp with time zone)) FILTER (WHERE (((j.state)::text = 'ready'::text) AND ((j.run_at)::timestamp with time zone <= c.moment)))) AS oldest_ready_seconds
           FROM (pgqueue.job j
             CROSS JOIN ( SELECT pgqueue.clock() AS moment) c)
          GROUP BY j.queue
        ), dead AS (
         SELECT d.queue,
            count(*) AS buried
           FROM pgqueue.dead_letter d
          GROUP BY d.queue
        ), names AS (
         SELECT live_1.queue
           FROM live live_1
        UNION
         SELECT dead_1.queue
           FROM dead dead_1
        UNION
         SELECT queue.name
           FROM pgqueue.queue
        )
 SELECT n.queue,
    COALESCE(live.ready, (0)::bigint) AS ready,
    COALESCE(live.scheduled, (0)::bigint) AS scheduled,
    COALESCE(live.running, (0)::bigint) AS running,
    COALESCE(live.blocked, (0)::bigint) AS blocked,
    COALESCE(dead.buried, (0)::bigint) AS buried,
    (live.oldest_ready_seconds)::double precision AS oldest_ready_seconds,
        CASE
            WHEN (q.paused_until > pgqueue.clock()) THEN q.paused_until
            ELSE NULL::timestamp with time zone
        END AS paused_until
   FROM (((names n
     LEFT JOIN live ON (((live.queue)::text = n.queue)))
     LEFT JOIN dead ON ((dead.queue = n.queue)))
     LEFT JOIN pgqueue.queue q ON (((q.name)::text = n.queue)));

COMMENT ON VIEW pgqueue.queues IS 'Counts by queue; counting reads the live jobs, so ask seldom.';

CREATE TABLE pgqueue.role_grant (
    role text NOT NULL,
    kind text NOT NULL,
    queue text NOT NULL,
    CONSTRAINT role_grant_kind_check CHECK ((kind = ANY (ARRAY['producer'::text, 'worker'::text, 'observer'::text, 'admin'::text]))),
    CONSTRAINT role_grant_queue_check CHECK ((queue <> ''::text))
);

COMMENT ON TABLE pgqueue.role_grant IS 'What pgqueue grant gave to which role; queue * is every queue.';

CREATE TABLE pgqueue.schema_revision (
    version_num character varying(32) NOT NULL
);

CREATE TABLE pgqueue.settings (
    one_row boolean DEFAULT true NOT NULL,
    retention interval DEFAULT '7 days'::interval NOT NULL,
    CONSTRAINT settings_one_row_check CHECK (one_row),
    CONSTRAINT settings_retention_check CHECK ((retention > '00:00:00'::interval))
);

COMMENT ON TABLE pgqueue.settings IS 'One row: how long finished jobs and attempts are kept.';

CREATE TABLE pgqueue.worker (
    name text NOT NULL,
    host text NOT NULL,
    pid integer NOT NULL,
    session uuid NOT NULL,
    state text NOT NULL,
    reason text,
    queues text[] NOT NULL,
    started_at timestamp with time zone NOT NULL,
    last_seen timestamp with time zone NOT NULL,
    CONSTRAINT worker_name_check CHECK ((name <> ''::text)),
    CONSTRAINT worker_state_check CHECK ((state = ANY (ARRAY['running'::text, 'stopping'::text, 'retired'::text])))
)
WITH (fillfactor='50');

COMMENT ON TABLE pgqueue.worker IS 'Presence of worker processes; session tells two processes with one name apart.';

COMMENT ON COLUMN pgqueue.worker.reason IS 'Why it has retired: what made it unfit, or who evicted it.';

CREATE VIEW pgqueue.workers AS
 SELECT name AS worker,
    host,
    pid,
        CASE
            WHEN ((state <> 'retired'::text) AND (last_seen < (pgqueue.clock() - '00:00:30'::interval))) THEN 'dead'::text
            ELSE state
        END AS state,
    queues,
    started_at,
    last_seen,
    ( SELECT count(*) AS count
           FROM ((pgqueue.lease l
             CROSS JOIN LATERAL unnest(l.job_ids) member(id))
             JOIN pgqueue.job j ON (((j.id = member.id) AND (j.lease_id = l.id))))
          WHERE (l.worker = w.name)) AS running,
    reason
   FROM pgqueue.worker w;

COMMENT ON VIEW pgqueue.workers IS 'Worker processes; dead where not seen for 30 s.';

ALTER TABLE ONLY pgqueue.attempt ATTACH PARTITION pgqueue.attempt_default DEFAULT;

ALTER TABLE ONLY pgqueue.job_history ATTACH PARTITION pgqueue.job_history_default DEFAULT;

ALTER TABLE ONLY pgqueue.asleep
    ADD CONSTRAINT asleep_pkey PRIMARY KEY (worker, queue);

ALTER TABLE ONLY pgqueue.audit
    ADD CONSTRAINT audit_pkey PRIMARY KEY (id);

ALTER TABLE ONLY pgqueue.dead_letter
    ADD CONSTRAINT dead_letter_pkey PRIMARY KEY (id);

ALTER TABLE ONLY pgqueue.job
    ADD CONSTRAINT job_pkey PRIMARY KEY (id);

ALTER TABLE ONLY pgqueue.late_result
    ADD CONSTRAINT late_result_pkey PRIMARY KEY (job_id, attempt);

ALTER TABLE ONLY pgqueue.lease
    ADD CONSTRAINT lease_pkey PRIMARY KEY (id);

ALTER TABLE ONLY pgqueue.queue
    ADD CONSTRAINT queue_pkey PRIMARY KEY (name);

ALTER TABLE ONLY pgqueue.role_grant
    ADD CONSTRAINT role_grant_pkey PRIMARY KEY (role, kind, queue);

ALTER TABLE ONLY pgqueue.schema_revision
    ADD CONSTRAINT schema_revision_pkc PRIMARY KEY (version_num);

ALTER TABLE ONLY pgqueue.settings
    ADD CONSTRAINT settings_pkey PRIMARY KEY (one_row);

ALTER TABLE ONLY pgqueue.worker
    ADD CONSTRAINT worker_pkey PRIMARY KEY (name);

CREATE INDEX attempt_job ON ONLY pgqueue.attempt USING btree (job_id);

CREATE INDEX attempt_default_job_id_idx ON pgqueue.attempt_default USING btree (job_id);

CREATE INDEX dead_letter_oldest ON pgqueue.dead_letter USING btree (queue, buried_at, id);

CREATE INDEX job_claim ON pgqueue.job USING btree (queue, priority, run_at, id) WHERE ((state)::text = 'ready'::text);

CREATE INDEX job_history_id ON ONLY pgqueue.job_history USING btree (id);

CREATE INDEX job_history_default_id_idx ON pgqueue.job_history_default USING btree (id);

CREATE UNIQUE INDEX job_unique_key ON pgqueue.job USING btree (unique_key) WHERE (unique_key IS NOT NULL);

CREATE INDEX late_result_arrived ON pgqueue.late_result USING btree (arrived_at);

ALTER INDEX pgqueue.attempt_job ATTACH PARTITION pgqueue.attempt_default_job_id_idx;

ALTER INDEX pgqueue.job_history_id ATTACH PARTITION pgqueue.job_history_default_id_idx;

CREATE TRIGGER wake_for_new_jobs AFTER INSERT ON pgqueue.job REFERENCING NEW TABLE AS new_jobs FOR EACH STATEMENT EXECUTE FUNCTION pgqueue.wake_for_new_jobs();
