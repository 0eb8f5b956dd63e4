-- The contract for reading. Adding a column is allowed, changing one is not. Domains are cast, so that the parts of a
-- union have the same types: only then does a condition or an order reach their indexes.

create view pgqueue.jobs as
select j.id, j.queue::text, j.task::text,
       case when j.state = 'ready' and j.run_at > pgqueue.clock() then 'scheduled' else j.state end as state,
       j.priority, j.run_at::timestamptz, j.attempt::integer, j.failures::integer, j.losses::integer, j.args::jsonb,
       j.headers::jsonb, null::jsonb as result, j.cancel_reason as reason, j.enqueued_at::timestamptz,
       null::timestamptz as finished_at, l.worker,
       l.expires_at as lease_expires_at, j.unique_key, j.cancel_requested_at, j.enqueued_by
  from pgqueue.job j
  left join pgqueue.lease l on l.id = j.lease_id
union all
select d.id, d.queue, d.task, 'buried', d.priority, d.run_at, d.attempt, d.failures, d.losses, d.args, d.headers,
       null, d.reason, d.enqueued_at, null, null, null, d.unique_key, null, d.enqueued_by
  from pgqueue.dead_letter d
union all
select h.id, h.queue, h.task, h.state::text, h.priority, h.run_at, h.attempt, h.failures, h.losses, h.args, h.headers,
       h.result, h.reason, h.enqueued_at, h.finished_at, h.worker, null, null, null, h.enqueued_by
  from pgqueue.job_history h;
comment on view pgqueue.jobs is 'Every job, live, buried and finished.';

create view pgqueue.attempts as
select a.job_id, a.attempt, a.outcome::text, a.worker, a.started_at, a.finished_at, a.error,
       r.result as late_result, r.error as late_error
  from pgqueue.attempt a
  left join pgqueue.late_result r on r.job_id = a.job_id and r.attempt = a.attempt
union all
select j.id, j.attempt::integer, null, l.worker, l.claimed_at, null, null, null, null
  from pgqueue.job j
  join pgqueue.lease l on l.id = j.lease_id
 where j.state = 'running';
comment on view pgqueue.attempts is 'Every attempt; a running one has no outcome yet.';

create view pgqueue.queues as
with live as (
    select j.queue,
           count(*) filter (where j.state = 'ready' and j.run_at <= c.moment) as ready,
           count(*) filter (where j.state = 'ready' and j.run_at > c.moment) as scheduled,
           count(*) filter (where j.state = 'running') as running,
           count(*) filter (where j.state = 'blocked') as blocked,
           extract(epoch from max(c.moment - j.run_at) filter (where j.state = 'ready' and j.run_at <= c.moment))
               as oldest_ready_seconds
      from pgqueue.job j cross join (select pgqueue.clock() as moment) c
     group by j.queue
), dead as (
    select d.queue, count(*) as buried from pgqueue.dead_letter d group by d.queue
), names as (
    select queue from live union select queue from dead union select name from pgqueue.queue
)
select n.queue, coalesce(live.ready, 0) as ready, coalesce(live.scheduled, 0) as scheduled,
       coalesce(live.running, 0) as running, coalesce(live.blocked, 0) as blocked, coalesce(dead.buried, 0) as buried,
       live.oldest_ready_seconds::double precision as oldest_ready_seconds,
       case when q.paused_until > pgqueue.clock() then q.paused_until end as paused_until
  from names n
  left join live on live.queue = n.queue
  left join dead on dead.queue = n.queue
  left join pgqueue.queue q on q.name = n.queue;
comment on view pgqueue.queues is 'Counts by queue; counting reads the live jobs, so ask seldom.';

create view pgqueue.workers as
select w.name as worker, w.host, w.pid,
       case when w.state <> 'retired' and w.last_seen < pgqueue.clock() - interval '30 s' then 'dead' else w.state end
           as state,
       w.queues, w.started_at, w.last_seen,
       (select count(*) from pgqueue.lease l cross join lateral unnest(l.job_ids) as member(id)
          join pgqueue.job j on j.id = member.id and j.lease_id = l.id
         where l.worker = w.name) as running,
       w.reason
  from pgqueue.worker w;
comment on view pgqueue.workers is 'Worker processes; dead where not seen for 30 s.';

create or replace function pgqueue.schema_version() returns integer
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$ select 7 $$;
