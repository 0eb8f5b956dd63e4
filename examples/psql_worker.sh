#!/usr/bin/env bash
# A worker in bash and psql alone: psql_worker.sh QUEUE COMMAND [ARGUMENT...]
# COMMAND reads the job's arguments as JSON on stdin, and its task from $PGQUEUE_TASK. Exit code 0 completes the job with
# what it printed as the result; any other fails it. Stopped half way, the worker leaves the job to its lease.
set -euo pipefail
queue=$1 lease=${LEASE_SECONDS:-30} folder=$(mktemp -d)
shift
# Only the worker tidies up: a child that is stopped in its first moment still has this trap.
trap '((${BASHPID:-$$} != $$)) || { rm -rf "$folder"; kill $(jobs -p) 2>/dev/null || true; }' EXIT
trap 'exit 0' TERM INT

sql() { psql -XAtqF $'\t' -v ON_ERROR_STOP=1 -v lease="$lease s" -v id="${id:-}" -v attempt="${attempt:-}" "$@" "${PGQUEUE_DSN:-}"; }

keep_lease() {  # a refusal means that somebody else has the job: stop working on it
    while sleep $((lease / 3)); do sql <<<"select pgqueue.extend(:id, :attempt, :'lease')" || kill "$1"; done >/dev/null
}

while true; do
    job=$(sql -v queue="$queue" -v worker="psql-$$" <<<"select id, attempt, args, task
        from pgqueue.claim(queue => :'queue', lease => :'lease', worker => :'worker')")
    [[ -n $job ]] || { sleep "${POLL_SECONDS:-1}" & wait $!; continue; }
    IFS=$'\t' read -r id attempt args task <<<"$job"
    PGQUEUE_TASK=$task "$@" <<<"$args" >"$folder/result" 2>"$folder/error" & command=$!
    keep_lease $command & keeper=$!
    code=0; wait $command || code=$?
    kill $keeper; wait $keeper 2>/dev/null || true
    move="select pgqueue.complete(:id, :attempt, to_jsonb(:'result'::text))"
    ((code == 0)) || move="select pgqueue.fail(:id, :attempt, jsonb_build_object('class', 'exit code $code', 'message', :'error'))"
    sql -v result="$(<"$folder/result")" -v error="$(tail -c 2000 "$folder/error")" <<<"$move" >/dev/null || echo "job $id is no longer ours" >&2
done
