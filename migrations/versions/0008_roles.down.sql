do $$
declare
    granted text;
    door    regprocedure;
begin
    for granted in select distinct g.role from pgqueue.role_grant g join pg_catalog.pg_roles r on r.rolname = g.role loop
        delete from pgqueue.role_grant g where g.role = granted;
        perform pgqueue.apply_grants(granted);
    end loop;
    for door in
        select p.oid::regprocedure from pg_catalog.pg_proc p
         where p.pronamespace = 'pgqueue'::regnamespace and p.proname in (select d.object from pgqueue.doors() d)
    loop
        execute format('alter function %s security invoker', door);
    end loop;
end
$$;
grant execute on all functions in schema pgqueue to public;
drop function pgqueue.revoke_role(text, text, text[]);
drop function pgqueue.grant_role(text, text, text[]);
drop function pgqueue.apply_grants(text);
drop function pgqueue.check_role(text, text, text[]);
drop view pgqueue.own_jobs;
drop function pgqueue.own_roles();
drop function pgqueue.reads_all();
drop function pgqueue.doors();
create or replace function pgqueue.schema_version() returns integer
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$ select 7 $$;
