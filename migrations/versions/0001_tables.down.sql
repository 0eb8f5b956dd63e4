drop function pgqueue.schema_version();
drop table pgqueue.role_grant, pgqueue.audit, pgqueue.asleep, pgqueue.worker, pgqueue.queue, pgqueue.settings, pgqueue.job_history,
    pgqueue.dead_letter, pgqueue.late_result, pgqueue.attempt, pgqueue.lease, pgqueue.job;
drop function pgqueue.clock();
drop domain pgqueue.queue_name, pgqueue.task_name, pgqueue.live_state, pgqueue.final_state, pgqueue.outcome, pgqueue.object,
    pgqueue.natural_number, pgqueue.time_limit, pgqueue.instant;
