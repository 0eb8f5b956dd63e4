-- Ways in, and the gate that wakes sleepers.

-- Who calls it: every function that finds bad input. A message names the value, then after a colon the cure.
create function pgqueue.reject(message text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception using errcode = 'PQ422', message = reject.message;
end
$$;
comment on function pgqueue.reject(text) is 'Raises PQ422: bad input.';

-- The role that called from outside; null where it is the owner, who may do anything, or a superuser. Within a function
-- that runs as its owner, current_user is that owner; whoever called is session_user, or what it has set as its role.
-- An expression, which costs its caller no call: what is hot asks it first, and the functions below only if it must.
create function pgqueue.limited_caller() returns text
language sql stable
return case
    when not pg_has_role(coalesce(nullif(current_setting('role'), 'none'), session_user)::name, current_user, 'usage')
    then coalesce(nullif(current_setting('role'), 'none'), session_user)
end;
comment on function pgqueue.limited_caller() is 'The role that calls, where it may not do everything; else null.';

-- Every function that an outside role may call asks this, where a privilege to call it does not say it all.
create function pgqueue.is_allowed(kinds text[], queue text) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
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
comment on function pgqueue.is_allowed(text[], text) is 'Whether the calling role was granted one of these kinds for this queue.';

create function pgqueue.check_allowed(kind text, queues text[]) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
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
$$;
comment on function pgqueue.check_allowed(text, text[]) is 'Raises 42501 unless the calling role was granted this kind, or admin, for all these queues.';

-- Refuses a duration that a caller gave, unless it is in order; null passes.
create function pgqueue.check_duration(name text, duration interval, zero_allowed boolean) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if duration < interval '0' or duration = interval '0' and not zero_allowed or duration > interval '100 years' then
        perform pgqueue.reject(
            format('%s is %s: give a duration %s 0 and up to 100 years, such as ''30 s''', name, duration,
                   case when zero_allowed then 'of at least' else 'above' end));
    end if;
end
$$;
comment on function pgqueue.check_duration(text, interval, boolean) is 'Refuses a negative, endless or (unless allowed) zero duration.';

-- The job that is to be enqueued when the one with these headers is buried; null where there is none, or none that could be.
create function pgqueue.follow_up(headers jsonb) returns jsonb
language sql immutable
return case
    when length(headers -> 'on_buried' ->> 'task') between 1 and 500
     and length(headers -> 'on_buried' ->> 'queue') between 1 and 200
    then headers -> 'on_buried'
end;
comment on function pgqueue.follow_up(jsonb) is 'The task and queue of the job that follows a burial, from the header on_buried.';

-- Says what is wrong with a new job, or null. Who calls it: enqueue, for a job that leaves its defaults; enqueue_many
-- and check_jobs, for each. It is inlined there.
create function pgqueue.fault_of(
    task text, args jsonb, queue text, priority integer, delay interval, run_at timestamptz,
    unique_key text, max_failures integer, timeout interval, headers jsonb) returns text
language sql stable
return case
    when task is null or task = '' then 'task is empty: name the task to run'
    when length(task) > 500 then format('task has %s characters: at most 500 fit', length(task))
    when queue = '' then 'queue is empty: name a queue, such as ''default'''
    when length(queue) > 200 then format('queue has %s characters: at most 200 fit', length(queue))
    when jsonb_typeof(args) <> 'object'
        then format('args is a JSON %s: give an object, such as {"user_id": 7}', jsonb_typeof(args))
    when jsonb_typeof(headers) <> 'object'
        then format('headers is a JSON %s: give an object, such as {"trace": "a1"}', jsonb_typeof(headers))
    when octet_length(headers::text) > 65536
        then format('headers has %s bytes: at most 65536 fit; put the data into args', octet_length(headers::text))
    when headers ? 'on_buried' and pgqueue.follow_up(headers) is null
        then format('the header on_buried is %s: give the job that is to follow a burial, such as '
                    '{"task": "mail_operator", "queue": "default"}', left(headers ->> 'on_buried', 200))
    when priority not between -32768 and 32767
        then format('priority is %s: give a whole number from -32768 (first) to 32767 (last)', priority)
    when delay is not null and run_at is not null then 'delay and run_at are both given: give one of them'
    when delay < interval '0' or delay > interval '100 years'
        then format('delay is %s: give a duration from 0 to 100 years', delay)
    when not isfinite(run_at) or run_at > '9999-12-30 00:00:00+00'
        then format('run_at is %s: give a date before the end of the year 9999', run_at)
    when max_failures < 0 then format('max_failures is %s: give 0 (bury at once) or more', max_failures)
    when timeout <= interval '0' or timeout > interval '100 years'
        then format('timeout is %s: give a duration above 0 and up to 100 years, or null for none', timeout)
    when unique_key = '' then 'unique_key is empty: give a key, or null for none'
    when octet_length(unique_key) > 2000
        then format('unique_key has %s bytes: at most 2000 fit; hash it', octet_length(unique_key))
end;
comment on function pgqueue.fault_of is 'What is wrong with a new job, and the cure; null where nothing is.';

-- What a queue's own settings forbid: arguments too large (PQ422), too many waiting jobs (PQ429).
-- The count is taken without a lock, so concurrent producers may overshoot max_waiting by what they are adding.
create function pgqueue.check_room(queue text, largest_args bigint, new_jobs bigint) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
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
comment on function pgqueue.check_room(text, bigint, bigint) is 'Refuses what the settings of a queue forbid.';

-- A notification is a hint, so it must never fail who sends it: with a full queue of notifications every COMMIT that sends
-- one fails, which nothing can catch. To ask how full it is also frees what all listeners have read.
create function pgqueue.hint(channel text, payload text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if pg_notification_queue_usage() < 0.5 then
        perform pg_notify(channel, payload);
    end if;
end
$$;
comment on function pgqueue.hint(text, text) is 'NOTIFY, unless the server''s queue of notifications is half full.';

-- Wakes the sleepers of one queue, if one is asleep that does not look again by itself in time.
-- A NOTIFY takes one cluster-wide lock through commit, so it is sent only when somebody needs it.
create function pgqueue.wake(queue text, run_at timestamptz) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    if exists (select from pgqueue.asleep a
                where a.next_run_at > wake.run_at and (a.queue = wake.queue or wake.queue like a.queue escape '')) then
        perform pgqueue.hint('pgqueue', wake.queue);
    end if;
end
$$;
comment on function pgqueue.wake(text, timestamptz) is 'NOTIFY pgqueue with the queue''s name, if a sleeper needs it.';

-- Holds for every way in: functions, plain INSERT and COPY.
create function pgqueue.wake_for_new_jobs() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if exists (select from pgqueue.asleep) then
        perform pgqueue.wake(n.queue, min(n.run_at)) from new_jobs n where n.state = 'ready' group by n.queue;
    end if;
    return null;
end
$$;
comment on function pgqueue.wake_for_new_jobs() is 'Statement trigger on job: the gated wake-up.';

create trigger wake_for_new_jobs after insert on pgqueue.job
    referencing new table as new_jobs
    for each statement execute function pgqueue.wake_for_new_jobs();

create function pgqueue.job_with_key(unique_key text) returns bigint
language sql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$ select j.id from pgqueue.job j where j.unique_key = job_with_key.unique_key $$;
comment on function pgqueue.job_with_key(text) is 'The live job that has this unique key.';

-- Who calls it: applications, inside their own transaction. Past run_at counts as now, so that no job lands below
-- the position that workers have already reached. With a unique_key that a live job has, returns that job's id.
-- A transaction with one enqueue in it pays for each expression and statement anew, so what most jobs leave out is
-- asked for at once, and "on conflict", which takes a lock of its own, is for those with a key.
create function pgqueue.enqueue(
    task text, args jsonb default '{}', queue text default 'default', priority integer default 0,
    delay interval default null, run_at timestamptz default null, unique_key text default null,
    max_failures integer default null, timeout interval default null, headers jsonb default '{}') returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
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
comment on function pgqueue.enqueue is 'Adds a job in the caller''s transaction; returns its id.';

-- Says what is wrong with an array of new jobs. Called only where something is, or where a job has a unique key.
create function pgqueue.check_jobs(jobs jsonb) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
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
comment on function pgqueue.check_jobs(jsonb) is 'Refuses an array of new jobs with what is wrong in it, where something is.';

-- One statement checks and adds all jobs without a unique key: it passes by what is wrong, and if one is missing then,
-- it looks for the reason. Those with a key go singly, in the order of their keys, so that two callers with the same
-- keys cannot deadlock. Ids come back in the order of the array.
create function pgqueue.enqueue_many(jobs jsonb) returns setof bigint
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
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
comment on function pgqueue.enqueue_many(jsonb) is 'Adds an array of jobs, objects with the keys of enqueue; returns their ids in order.';

create or replace function pgqueue.schema_version() returns integer
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$ select 2 $$;
