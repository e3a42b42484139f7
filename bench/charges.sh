# W1 to W6: charges and questions of many clients at once, each beside its peers; part of bench/run.sh.

# shellcheck shell=bash disable=SC2153 # run.sh has the settings

# figure, script, options of pgbench, the workloads that need it (W1+: only for comparison, not in the quick form)
RATES="
floor|floor||W1
floor_checked|floor_checked||W1+
round_trips|round_trips|-D users=20000|W1
plpgsql|plpgsql|-D users=20000|W1+
record|record|-D users=20000|W1 W2 W3 W4 W5 W6 W7 W13
record_organization|record_organization|-D organizations=1|W2
round_trips_organization|round_trips_organization|-D organizations=1|W2
plpgsql_organization|plpgsql_organization|-D organizations=1|W2+
record_organizations|record_organization|-D organizations=1000|W2+
round_trips_organizations|round_trips_organization|-D organizations=1000|W2+
record_user|record|-D users=1|W3
round_trips_user|round_trips|-D users=1|W3
plpgsql_user|plpgsql|-D users=1|W3+
record_key|record_key||W4
record_free|record_free||W4
batch|batch||W5
copy|copy||W5
check|check||W6
lookup|lookup||W6
"

part_charges() {
    new_database charges
    make_batches
    warm each_charge
    rounds each_charge
    books_are_clean charges
    drop_database charges
}

each_charge() {
    local name script options needed
    while IFS='|' read -r name script options needed; do
        [ "$ROUND$name" != 0batch ] || continue # so many rows are soon warm, and long to post
        # shellcheck disable=SC2086 # several words
        if [ -n "$name" ] && wants $needed; then
            case $name in
            batch) measure batch thousand_times rate charges batch_0 "${BATCHES[@]}" ;;
            copy) measure copy thousand_times rate charges copy ;;
            check | lookup) measure_under_load "$name" ;;
            record*) measure_record "$name" "$script" $options ;;
            *) measure "$name" rate charges "$script" $options ;;
            esac
            drain charges # what waits now is not the next one's to post
        fi
    done <<<"$RATES"
}

# measure_record FIGURE SCRIPT OPTION...: and how much of it was posted by the end.
measure_record() {
    local name=$1 before after left
    shift
    before=$(posted_requests)
    measure "$name" rate charges "$@"
    [ "$name" != record ] || PACE=$(quotient "$(tps_of record)" 2)
    left=$(unposted charges)
    after=$(posted_requests)
    figure "posted_$name" "$(quotient $((after - before)) $((after - before + left)))"
}

posted_requests() { sql charges "SELECT sum(request_count) FROM $EXTENSION.exa_monthly_usage"; }

thousand_times() {
    local value
    value=$("$@")
    quotient "$value" 0.001
}

# What a client sends: 20 batches of 1,000 requests, as parameters; between them all 20,000 users.
make_batches() {
    local n
    BATCHES=()
    for n in $(seq 0 19); do
        BATCHES+=(-D "batch_$n=$(awk -v n="$n" 'BEGIN {
            printf "["
            for (i = 0; i < 1000; i++)
                printf "%s{\"user_id\": \"user-%d\", \"path\": \"/search\", \"cost_microdollars\": 5000}",
                    i ? ", " : "", 1 + n + 20 * i
            printf "]" }')")
        echo "SELECT count(*) FROM $EXTENSION.record_exa_usage_batch(:batch_$n);" >"$DIR/batch_$n.sql"
        if [ "$n" -gt 0 ]; then BATCHES+=(-f "$DIR/batch_$n.sql"); fi
    done
    chmod a+r "$DIR"/batch_*.sql
}


# measure_under_load SCRIPT: while others charge, both at the same pace: half of what was possible alone.
measure_under_load() {
    local load
    run_pgbench charges record -D users=20000 -c "$CLIENTS" -j 2 -T $((SECONDS_PER_RUN + 3)) -R "$PACE" &
    load=$!
    sleep 2
    measure "$1" rate charges "$1"
    wait "$load" || die "the load beside $1 failed"
    figure "load_$1" "$(tps_of record)"
}
