-- Presence of workers, partitions and retention: duties that any worker may do and none must.

-- A worker's name is its own: a second process with the name is refused while the first is alive. The same host and
-- pid is the same container started again, which may take its name back at once; who has retired gives it up.
create function pgqueue.register_worker(name text, host text, pid integer, session uuid, queues text[]) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
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
comment on function pgqueue.register_worker is 'A worker starts; PQ409 where its name is in use.';

-- The process that has a worker's name on this host, for the next one to see whether it is still there.
create function pgqueue.namesake(name text, host text, out pid integer, out session uuid) returns record
language sql
set search_path = pg_catalog, pg_temp
as $$ select w.pid, w.session from pgqueue.worker w where w.name = namesake.name and w.host = namesake.host $$;
comment on function pgqueue.namesake(text, text) is 'Who has this name on this host: process and session.';

create function pgqueue.still_here(name text, session uuid, state text) returns text
language sql
set search_path = pg_catalog, pg_temp
as $$
    update pgqueue.worker w
       set last_seen = pgqueue.clock(), state = case when w.state = 'retired' then w.state else still_here.state end
     where w.name = still_here.name and w.session = still_here.session
    returning w.state
$$;
comment on function pgqueue.still_here(text, uuid, text) is 'Presence, every few seconds. Returns the worker''s state: retired, if it was evicted, or null where the row is another''s or gone.';

create function pgqueue.deregister_worker(name text, session uuid) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
    delete from pgqueue.asleep a where a.worker = deregister_worker.name
       and exists (select from pgqueue.worker w where w.name = deregister_worker.name and w.session = deregister_worker.session);
    delete from pgqueue.worker w where w.name = deregister_worker.name and w.session = deregister_worker.session;
$$;
comment on function pgqueue.deregister_worker(text, uuid) is 'A worker stops.';

-- Its row stays for a day, so that somebody may read why. Who was evicted keeps that reason.
create function pgqueue.retire_worker(name text, session uuid, reason text) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
    delete from pgqueue.asleep a where a.worker = retire_worker.name
       and exists (select from pgqueue.worker w where w.name = retire_worker.name and w.session = retire_worker.session);
    update pgqueue.worker w
       set state = 'retired', last_seen = pgqueue.clock(),
           reason = case when w.state = 'retired' then w.reason else retire_worker.reason end
     where w.name = retire_worker.name and w.session = retire_worker.session;
$$;
comment on function pgqueue.retire_worker(text, uuid, text) is 'A worker stops because it is unfit for work.';

-- One partition a day (UTC), made apart and attached, which blocks no reader and no writer of the others. Rows that
-- the default partition holds of that day move over. Bounds pass through text: hence the pinned style and zone, or a
-- session in Asia/Kolkata with datestyle SQL writes IST and some servers read Israel's time.
create function pgqueue.make_partitions(days_ahead integer default 3) returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO, YMD'
set timezone = 'UTC'
set lock_timeout = '300ms'
as $$
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
comment on function pgqueue.make_partitions(integer) is 'Makes the partitions of today and the days ahead; returns how many.';

-- Dropping a partition locks its parent: for at most the lock_timeout, then it gives up until the next turn, so that
-- a long transaction that reads history never holds up completions.
create function pgqueue.drop_partitions() returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '300ms'
as $$
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
$$;
comment on function pgqueue.drop_partitions() is 'Drops finished jobs and attempts older than settings.retention.';

-- Who calls it: workers, at start and every few minutes; one at a time, the others pass by. Without workers of ours,
-- call it from cron once a day. What a long reader of history keeps from being made or dropped waits for the next turn;
-- what finishes meanwhile lands in the default partition.
create function pgqueue.maintain() returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
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
comment on function pgqueue.maintain() is 'Partitions, retention and tidying; false where somebody else is at it.';

select pgqueue.make_partitions();

create or replace function pgqueue.schema_version() returns integer
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$ select 6 $$;
