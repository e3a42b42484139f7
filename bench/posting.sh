# W7, W8 and W13: posting alone, for a long time, and under an old snapshot; part of bench/run.sh.

# shellcheck shell=bash disable=SC2153 # run.sh has the settings

# ---------------------------------------------------------------- W7

part_queue() {
    new_database queue
    worker queue stop
    rounds measure_posting
    books_are_clean queue
    drop_database queue
}

measure_posting() {
    fill_queue queue "$QUEUE_ROWS"
    measure posting post_everything queue
}

fill_queue() { # DATABASE ROWS
    psql_in "$DIR" "$MAJOR" -qAt -v ON_ERROR_STOP=1 -v "batches=$(($2 / 10000))" -d "$1" -f "$DIR/queue.sql" >/dev/null
}

# post_everything DATABASE: rows per second, by hand, while the worker does nothing.
post_everything() {
    local rows began
    rows=$(unposted "$1")
    began=$(now)
    run_file "$1" post_all.sql
    quotient "$rows" "$(quotient "$(($(now) - began))" 1000000)"
    [ "$(unposted "$1")" = 0 ] || die "something was not posted"
}

now() { date +%s%6N; } # microseconds

# ---------------------------------------------------------------- W8

# Ten minutes, or ten shorter steps: the rate of each step, and the sizes at its end.
part_minutes() {
    new_database minutes
    local step sizes
    run_pgbench minutes record -D users=20000 -c "$CLIENTS" -j 2 -T $((STEPS * STEP_SECONDS + 2)) -P "$STEP_SECONDS" &
    local load=$!
    for step in $(seq "$STEPS"); do
        sleep "$STEP_SECONDS"
        sizes=$(sql minutes "SELECT pg_table_size(q), pg_indexes_size(q), (SELECT count(*) FROM $EXTENSION.unposted_spend)
                             FROM to_regclass('$EXTENSION.unposted_spend') AS q")
        ROUND=$step
        figure step_table "${sizes%%|*}"
        figure step_indexes "$(cut -d '|' -f 2 <<<"$sizes")"
        figure step_waiting "${sizes##*|}"
    done
    wait "$load" || die "the long run failed"
    ROUND=0
    while read -r step; do
        ROUND=$((ROUND + 1))
        figure step_rate "$step"
    done < <(sed -n 's/^progress: .* s, \([0-9.]*\) tps.*/\1/p' "$DIR/record.out" | head -n "$STEPS")
    ROUND=1
    figure queue_first "$(($(at_step step_table 1) + $(at_step step_indexes 1)))"
    figure queue_last "$(($(at_step step_table "$STEPS") + $(at_step step_indexes "$STEPS")))"
    figure rate_first "$(median_of_steps 1 3)"
    figure rate_last "$(median_of_steps $((STEPS - 2)) "$STEPS")"
    drain minutes
    books_are_clean minutes
    drop_database minutes
}

at_step() { awk -F '\t' -v name="$1" -v step="$2" '$1 == name && $2 == step { print $3 }' "$FIGURES"; }

median_of_steps() { # FIRST LAST
    awk -F '\t' -v f="$1" -v l="$2" '$1 == "step_rate" && f <= $2 && $2 <= l { print $3 }' "$FIGURES" |
        sort -g | sed -n 2p
}

# ---------------------------------------------------------------- W13

part_held() {
    new_database held
    measure_held start
    local before after
    open_snapshot
    before=$(ask_snapshot)
    run_held_load -T $((STEPS * STEP_SECONDS))
    measure_held end
    after=$(ask_snapshot)
    close_snapshot
    [ -n "$before" ] || die "the snapshot shows nothing"
    [ "$before" = "$after" ] || die "a figure moved under the snapshot: $before, $after"
    drain held
    books_are_clean held
    drop_database held
}

# Every tenth charge is for one organization, so that there is an owner with many rows to step over.
run_held_load() { run_pgbench held record_mixed -c "$CLIENTS" -j 2 "$@"; }

# measure_held WHEN: how long questions take at half the pace, and how fast 50,000 rows are posted.
measure_held() {
    local pace load
    pace=$(quotient "$(median_of record)" 2)
    run_held_load -T 12 -R "$pace" &
    load=$!
    sleep 2
    for ROUND in 1 2 3; do
        measure "check_$1" milliseconds_for 1 held check
        measure "busy_$1" milliseconds_for 1 held check_busy
    done
    ROUND=1
    wait "$load" || die "the load beside the questions failed"
    drain held
    worker held stop
    for ROUND in 1 2 3; do
        fill_queue held 50000
        sql held "VACUUM $EXTENSION.unposted_spend" # as autovacuum does, if it may
        measure "posting_$1" post_everything held
    done
    ROUND=1
    worker held start
}

milliseconds_for() { # SECONDS DATABASE SCRIPT
    run_pgbench "$2" "$3" -c 1 -T "$1"
    milliseconds_of "$3"
}

open_snapshot() {
    coproc SNAPSHOT { psql_in "$DIR" "$MAJOR" -qAt -v ON_ERROR_STOP=1 -d held; }
    echo 'BEGIN ISOLATION LEVEL REPEATABLE READ;' >&"${SNAPSHOT[1]}"
}

# What the snapshot shows: it must not move, whatever is charged and posted.
ask_snapshot() {
    local figures
    echo "SELECT sum(microdollars_used), count(*),
                 ($EXTENSION.account_balance('organization', 'org-1')).balance_microdollars
          FROM $EXTENSION.account_balances;" >&"${SNAPSHOT[1]}"
    read -r -u "${SNAPSHOT[0]}" figures
    echo "$figures"
}

close_snapshot() {
    echo 'COMMIT; \q' >&"${SNAPSHOT[1]}"
    wait "$SNAPSHOT_PID"
}
