-- Who may do what: functions run as the owner of the schema, nobody else touches a table, and roles are granted the
-- functions that their kind needs. docs/roles.md shows it as a matrix.

-- One list for all: what a kind of role may call or read. A function that is not in it belongs to the owner alone.
create function pgqueue.doors(out kind text, out object text) returns setof record
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
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
comment on function pgqueue.doors() is 'Which functions and views each kind of role is granted.';

create function pgqueue.reads_all() returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$ select pgqueue.is_allowed('{observer,admin}', '*') $$;
comment on function pgqueue.reads_all() is 'Whether the calling role may read every job.';

create function pgqueue.own_roles() returns text[]
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select array(select r.rolname::text from pg_catalog.pg_roles r
                  where pg_has_role(coalesce(pgqueue.limited_caller(), session_user)::name, r.oid, 'usage'))
$$;
comment on function pgqueue.own_roles() is 'The roles whose jobs the calling role has enqueued: itself, and those it is a member of.';

create view pgqueue.own_jobs with (security_barrier) as
select j.*
  from pgqueue.jobs j
 where (select pgqueue.reads_all()) or j.enqueued_by = any ((select pgqueue.own_roles())::text[]);
comment on view pgqueue.own_jobs is 'The jobs that the reader has enqueued; all jobs, for whoever may read them all.';

create function pgqueue.check_role(kind text, role text, queues text[]) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
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
comment on function pgqueue.check_role(text, text, text[]) is 'Refuses a kind, a role or queues that cannot be granted.';

-- Gives a role what its kinds need, and takes away the rest.
create function pgqueue.apply_grants(role text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
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
comment on function pgqueue.apply_grants(text) is 'Grants a role what role_grant says, and no more.';

create function pgqueue.grant_role(kind text, role text, queues text[] default null) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
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
comment on function pgqueue.grant_role(text, text, text[]) is 'A role becomes a producer, worker, observer or admin, of these queues or of all.';

create function pgqueue.revoke_role(kind text, role text, queues text[] default null) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
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
comment on function pgqueue.revoke_role(text, text, text[]) is 'Takes back what grant_role gave.';

create or replace function pgqueue.schema_version() returns integer
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$ select 8 $$;

-- Not by default privileges: those of a schema cannot take back what PUBLIC is given on every new function.
revoke all on all functions in schema pgqueue from public;
revoke all on all tables in schema pgqueue from public;
do $$
declare
    door regprocedure;
begin
    for door in
        select p.oid::regprocedure from pg_catalog.pg_proc p
         where p.pronamespace = 'pgqueue'::regnamespace and p.proname not in ('clock', 'schema_version')
           and p.proname in (select d.object from pgqueue.doors() d)
    loop
        execute format('alter function %s security definer', door);
    end loop;
end
$$;
