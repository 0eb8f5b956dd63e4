drop function pgqueue.schema_version();
drop table pgqueue.audit, pgqueue.asleep, pgqueue.worker, pgqueue.queue, pgqueue.settings, pgqueue.job_history,
    pgqueue.dead_letter, pgqueue.attempt, pgqueue.lease, pgqueue.job;
drop function pgqueue.clock();
