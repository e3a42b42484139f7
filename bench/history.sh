# W9 to W12: what long histories cost; part of bench/run.sh.

# shellcheck shell=bash disable=SC2153 # run.sh has the settings

# fill DATABASE PREFIX USERS EACH HOURS SPAN: each user has EACH charges in each of HOURS hours of the span.
fill() {
    sql "$1" "SELECT bench.fill('$2', $3, $4, $5, '$6')" "VACUUM ANALYZE" CHECKPOINT >/dev/null
}

# cover DATABASE SPAN: the rollups hold these hours, and nothing is different from the journals.
cover() {
    sql "$1" "CALL $EXTENSION.backfill_rollups(date_trunc('hour', now(), 'UTC') - interval '$2',
                                               date_trunc('hour', now(), 'UTC'), false)" >/dev/null 2>&1
    [ "$(sql "$1" "SELECT bool_and(covered_from <= date_trunc('hour', now(), 'UTC') - interval '$2')
                   FROM $EXTENSION.spend_sources")" = t ] || die "the filled hours are not covered"
}

quiet_database() { # NAME [TEMPLATE]: nothing goes on in it but what is measured
    new_database "$@"
    worker "$1" stop
}

# ---------------------------------------------------------------- W9, W11

part_history() {
    quiet_database history bare
    step "Filling: an owner with $CHARGES charges" fill history heavy- 1 $((CHARGES / 2160)) 2160 '90 days'
    cover history '90 days'
    # from a little before the first charge until now, half of them to expire
    sql history "SELECT count($EXTENSION.grant_credit('user', 'heavy-1', 1000000,
            CASE WHEN n % 2 = 0 THEN now() + n * interval '1 minute' + interval '30 days' END,
            created_at => now() - (91 - n * 0.09) * interval '1 day'))
        FROM generate_series(1, 1000) AS n" VACUUM >/dev/null
    ! wants W9 || rounds measure_recompute
    ! wants W11 || rounds measure_series
    if wants W9; then
        measure memory megabytes_grown heavy-1
    fi
    if wants W9+; then
        step "Filling: an owner with $((5 * CHARGES)) charges" \
            fill history heavier- 1 $((5 * CHARGES / 2160)) 2160 '90 days'
        measure memory_5 megabytes_grown heavier-1
    fi
    owner_is_clean history heavy-1
    books_are_clean history
    drop_database history
}

owner_is_clean() { # DATABASE USER
    [ "$(sql "$1" "SELECT count(*) FROM $EXTENSION.verify_books('user', '$2')")" = 0 ] ||
        die "the books of $2 do not add up"
}

measure_recompute() {
    measure recompute milliseconds history recompute 2
    measure sum milliseconds history sum 2
}

measure_series() {
    local name
    for name in series rolling; do
        measure $name milliseconds history $name 500 # what a session does once is soon a small part
        measure ${name}_journals milliseconds history ${name}_journals 2
    done
    same_figures
}

# Comparing the times of different answers would mean nothing. The clock goes on, so both are asked at once.
same_figures() {
    [ "$(sql history "
        BEGIN ISOLATION LEVEL REPEATABLE READ;
        SELECT sum(total_microdollars) FROM $EXTENSION.spend_series('user', 'heavy-1', '90d')")" = \
        "$(psql_in "$DIR" "$MAJOR" -qAt -d history -f "$DIR/series_journals.sql" |
            awk -F '|' '{ s += $3 } END { printf "%.0f", s }')" ] || die "series and journals differ"
    [ "$(run_text rolling)" = "$(run_text rolling_journals)" ] || die "rolling spend and journals differ"
}

run_text() { psql_in "$DIR" "$MAJOR" -qAt -v ON_ERROR_STOP=1 -d history -f "$DIR/$1.sql"; }

# megabytes_grown USER: by how much the memory of its own of a backend grows while it recomputes.
megabytes_grown() {
    local out=$DIR/grown.out pid now first=0 most=0
    : >"$out"
    sql history 'SELECT pg_backend_pid()' "SELECT count(*) FROM pg_class" 'SELECT pg_sleep(0.5)' \
        "SELECT ($EXTENSION.recompute_user_balances('$1')).*" >"$out" &
    local session=$!
    until pid=$(head -n 1 "$out") && [ -n "$pid" ]; do sleep 0.05; done
    sleep 0.2
    while now=$(awk '/^RssAnon:/ { print $2 }' "/proc/$pid/status" 2>/dev/null) && [ -n "$now" ]; do
        [ "$first" -gt 0 ] || first=$now
        [ "$now" -le "$most" ] || most=$now
        sleep 0.02
    done
    wait "$session" || die "recomputing $1 failed"
    quotient $((most - first)) 1024
}

# ---------------------------------------------------------------- W10

part_sweep() {
    quiet_database sweep bare
    step "Filling: $OWNERS owners, a charge in each hour of 30 days" fill sweep owner- "$OWNERS" 1 720 '30 days'
    cover sweep '30 days'
    # Everything is looked at, and nothing is found: what is measured is the looking.
    sql sweep "INSERT INTO $EXTENSION.spend_alert_settings
        SELECT 'user', 'owner-' || n, true, true, true, 1000000000000, 1000000000000, 1000000000000, now()
        FROM generate_series(1, $OWNERS) AS n" >/dev/null
    sweep_everybody # makes the owners' states
    rounds measure_sweep
    owner_is_clean sweep owner-1
    books_are_clean sweep
    drop_database sweep
}

sweep_everybody() {
    until [ "$(sql sweep "SELECT complete FROM $EXTENSION.run_spend_alert_sweep()")" = t ]; do :; done
}

# Microseconds for each owner that was evaluated.
measure_sweep() {
    local began evaluated=0 more row
    began=$(now)
    until [ "${more:-}" = t ]; do
        row=$(sql sweep "SELECT evaluated, failed, complete FROM $EXTENSION.run_spend_alert_sweep()")
        [ "$(cut -d '|' -f 2 <<<"$row")" = 0 ] || die "evaluations failed"
        evaluated=$((evaluated + ${row%%|*}))
        more=${row##*|}
    done
    figure sweep "$(quotient $(($(now) - began)) "$evaluated")"
    began=$(now)
    evaluated=$(psql_in "$DIR" "$MAJOR" -qAt -v ON_ERROR_STOP=1 -d sweep -f "$DIR/one_by_one.sql")
    [ "$evaluated" = "$OWNERS" ] || die "$evaluated owners were evaluated one by one"
    figure one_by_one "$(quotient $(($(now) - began)) "$evaluated")"
}

# ---------------------------------------------------------------- W12

part_log() {
    new_database empty
    quiet_database filled
    step "Filling: a log of $LOG_ROWS rows" \
        fill filled user- 20000 $((LOG_ROWS / 20000 / 50)) 50 "$(this_month_so_far)"
    owner_is_clean filled user-1
    worker filled start
    wait_for_posting filled
    warm measure_logs
    rounds measure_logs
    books_are_clean empty
    books_are_clean filled
    drop_database empty
    drop_database filled
}

measure_logs() {
    local database
    for database in empty filled; do
        measure "record_$database" rate $database record -D users=20000
        drain $database
    done
}

# The rows lie where the charges go, in this month's partition, as far as the month has come.
this_month_so_far() { echo "$((10#$(date -u +%d) * 24 - 24 + 10#$(date -u +%H))) hours"; }
