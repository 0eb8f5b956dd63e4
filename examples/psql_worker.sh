#!/usr/bin/env bash
# A worker in bash and psql alone: psql_worker.sh QUEUE COMMAND [ARGUMENT...]
# Each job runs COMMAND with the job's arguments as JSON on stdin and its task in $PGQUEUE_TASK. Exit code 0 completes
# the job, with what the command printed as its result; any other fails it, with what it printed on stderr.
set -euo pipefail
queue=$1 lease=${LEASE_SECONDS:-30}
shift
scratch=$(mktemp -d)
# Stopped half way, it leaves the job to its lease: once that has run out, another worker takes the job.
trap 'rm -rf "$scratch"; kill $(jobs -p) 2>/dev/null || true' EXIT
trap 'exit 0' TERM INT

sql() { psql -XAtq -F $'\t' -v ON_ERROR_STOP=1 -v lease="$lease seconds" "$@" "${PGQUEUE_DSN:-}"; }

keep_lease() {  # a refusal means that somebody else has the job: stop working on it
    while sleep $((lease / 3)); do
        sql -v id="$1" -v attempt="$2" <<<"select pgqueue.extend(:id, :attempt, lease => :'lease')" || kill "$3"
    done >/dev/null
}

while true; do
    job=$(sql -v queue="$queue" -v worker="psql-$$" <<<"select id, attempt, args, task
        from pgqueue.claim(queue => :'queue', lease => :'lease', worker => :'worker')")
    [[ -n $job ]] || { sleep "${POLL_SECONDS:-1}" & wait $!; continue; }
    IFS=$'\t' read -r id attempt args task <<<"$job"

    PGQUEUE_TASK=$task "$@" <<<"$args" >"$scratch/result" 2>"$scratch/error" & command=$!
    keep_lease "$id" "$attempt" "$command" & keeper=$!
    code=0; wait "$command" || code=$?
    kill "$keeper"; wait "$keeper" 2>/dev/null || true

    if ((code == 0)); then
        move="select pgqueue.complete(:id, :attempt, to_jsonb(:'result'::text))"
    else
        move="select pgqueue.fail(:id, :attempt, jsonb_build_object('class', 'exit code ' || :code, 'message', :'error'))"
    fi
    sql -v id="$id" -v attempt="$attempt" -v code="$code" -v result="$(<"$scratch/result")" \
        -v error="$(tail -c 2000 "$scratch/error")" <<<"$move" >/dev/null || echo "job $id is no longer ours" >&2
done
