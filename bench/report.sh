# Writes what was measured as bench/RESULTS.md; part of bench/run.sh.

# shellcheck shell=bash disable=SC2153 # run.sh has the settings

# workload | what is compared | figure | of figure (- : itself) | at least or at most | target (- : for
# comparison only)
TARGETS="
W1|record_exa_usage, paid, users spread, posting running: × round trips|record|round_trips|least|3
W1|× floor|record|floor|least|0.75
W1|× floor with the log's CHECK constraints|record|floor_checked|least|-
W1|× the same sequence in one PL/pgSQL function|record|plpgsql|least|-
W1|share of the charges that was posted by the end|posted_record|-|least|-
W2|all clients charge one organization: × round trips|record_organization|round_trips_organization|least|15
W2|× W1|record_organization|record|least|0.9
W2|× the PL/pgSQL function|record_organization|plpgsql_organization|least|-
W2|1,000 organizations: × round trips|record_organizations|round_trips_organizations|least|-
W3|all clients are one user, allowance used up: × round trips|record_user|round_trips_user|least|10
W3|× W1|record_user|record|least|0.8
W3|× the PL/pgSQL function|record_user|plpgsql_user|least|-
W4|with an idempotency key: × W1|record_key|record|least|0.7
W4|in the free regime: × W1|record_free|record|least|0.7
W5|batches of 1,000, rows/s: × W1|batch|record|least|10
W5|× COPY into the log|batch|copy|least|0.3
W6|check_exa_usage under W1 load: × a bare primary-key SELECT function|check|lookup|least|0.6
W7|posting alone, rows/s: × W1|posting|record|least|5
W8|queue and its indexes, bytes at the end: × after the first step|queue_last|queue_first|most|2
W8|rate, last three steps: × first three|rate_last|rate_first|least|0.9
W9|recompute of one owner, time: × sum(cost) in time order|recompute|sum|most|2
W9|memory growth, MB|memory|-|most|64
W9|memory growth with five times the charges, MB|memory_5|-|most|64
W10|sweep: times faster than owner by owner|one_by_one|sweep|least|20
W11|spend_series 90d: times faster than from the journals|series_journals|series|least|100
W11|rolling_spend 30d: times faster than from the journals|rolling_journals|rolling|least|100
W12|W1 on a full log: × on an empty one|record_filled|record_empty|least|0.9
W13|check under an old snapshot, time: × before|check_end|check_start|most|2
W13|balance of the busiest owner, time: × before|busy_end|busy_start|most|-
W13|posting, rows/s before an old snapshot: × under it|posting_start|posting_end|most|2
wal|WAL records of a charge, bytes: × floor|wal_record|wal_floor|most|-
wal|index entries of a charge: × floor|entries_record|entries_floor|most|-
"

# figure | unit | what it is
FIGURE_NAMES="
record|charges/s|W1: record_exa_usage for a random one of 20,000 users, paid; the worker posts meanwhile
floor|rows/s|INSERT of the same row into a log with the same columns, months and indexes
floor_checked|rows/s|the same with the log's CHECK constraints
round_trips|charges/s|the replaced system's sequence, six statements in a transaction of the client
plpgsql|charges/s|the same sequence in one PL/pgSQL function
posted_record|share|of the charges of a W1 run, those that were posted when it ended
record_organization|charges/s|W2: record_exa_usage of random users, all for one organization
round_trips_organization|charges/s|the same by round trips, seven statements
plpgsql_organization|charges/s|the same by the PL/pgSQL function
record_organizations|charges/s|record_exa_usage of random users, each for one of 1,000 organizations
round_trips_organizations|charges/s|the same by round trips
record_user|charges/s|W3: record_exa_usage, always the same user, allowance used up
round_trips_user|charges/s|the same by round trips
plpgsql_user|charges/s|the same by the PL/pgSQL function
record_key|charges/s|W4: as W1, each with an idempotency key of its own
record_free|charges/s|W4: as W1, of users whose allowance is not used up
batch|rows/s|W5: record_exa_usage_batch of 1,000 requests that the client sends as JSON
copy|rows/s|COPY of 1,000 rows at a time, from a file on the server, into the log of the floor
check|calls/s|W6: check_exa_usage while other clients charge at half the rate of W1
lookup|calls/s|a PL/pgSQL function that selects one row by its primary key, beside the same load
load_check|charges/s|the load beside check
load_lookup|charges/s|the load beside lookup
posting|rows/s|W7: post_spend() in one session until the queue is empty, nothing else going on
queue_first|bytes|W8: queue and its indexes after the first step
queue_last|bytes|W8: the same at the end
rate_first|charges/s|W8: median of the first three steps
rate_last|charges/s|W8: median of the last three steps
recompute|ms|W9: recompute_user_balances of an owner whose charges lie in 90 days, with 1,000 grants
sum|ms|sum of the same charges in time order
memory|MB|W9: growth of the backend's own memory (RssAnon), at its peak, while it recomputes
memory_5|MB|W9: the same with five times the charges
sweep|µs|W10: run_spend_alert_sweep(), for each owner evaluated
one_by_one|µs|evaluate_spend_alerts() for each of the same owners, in one transaction
series|ms|W11: spend_series of 90 days
series_journals|ms|the same figures by an aggregate over the journals
rolling|ms|W11: rolling_spend of 30 days
rolling_journals|ms|the same figure by an aggregate over the journals
record_empty|charges/s|W12: W1 in books that were just begun
record_filled|charges/s|W12: W1 where this month's partition of the log is full
check_start|ms|W13: check_exa_usage, one session beside half of W1's load, before the snapshot was taken
check_end|ms|W13: the same under the old snapshot
busy_start|ms|W13: account_balance of an organization that gets a tenth of all charges, before the snapshot was taken
busy_end|ms|W13: the same under the old snapshot
posting_start|rows/s|W13: post_spend() of 50,000 rows alone, before the snapshot was taken
posting_end|rows/s|W13: the same under the old snapshot
wal_record|bytes|WAL records of one charge, page images left out, not posted yet
wal_posting|bytes|WAL records of posting it, in batches of 10,000
wal_floor|bytes|WAL records of one row of the floor
wal_round_trips|bytes|WAL records of one charge by round trips
wal_images_record|bytes|the same as wal_record with page images, as it happened
wal_images_posting|bytes|wal_posting with page images
wal_images_floor|bytes|wal_floor with page images
wal_images_round_trips|bytes|wal_round_trips with page images
entries_record|entries|entries put into indexes by one charge
entries_posting|entries|by posting it
entries_floor|entries|by one row of the floor
entries_round_trips|entries|by one charge by round trips
"

# the values that a figure had, one per round, side by side with another's
by_round() { # FIGURE FIGURE: lowest and highest ratio of a round
    awk -F '\t' -v a="$1" -v b="$2" '
        $1 == a { of_a[$2] = $3 }
        $1 == b { of_b[$2] = $3 }
        END { for (r in of_a) if (r in of_b && of_b[r] > 0) print of_a[r] / of_b[r] }' "$FIGURES" |
        sort -g | awk '{ v[NR] = $1 } END { if (NR) print v[1], v[NR] }'
}

target_row() { # the fields of a line of TARGETS
    local workload=$1 what=$2 figure=$3 of=$4 bound=$5 target=$6 ratio low='' high='' sign='≥' reached
    ratio=$(median_of "$figure")
    if [ "$target" = - ] && { [ -z "$ratio" ] || { [ "$of" != - ] && [ -z "$(median_of "$of")" ]; }; }; then return; fi
    if [ "$of" != - ] && [ -n "$ratio" ]; then
        read -r low high <<<"$(by_round "$figure" "$of")"
        ratio=$(median_of "$of" | awk -v a="$ratio" '{ if ($1 > 0) print a / $1 }')
    fi
    [ "$bound" = least ] || sign='≤'
    reached=$(awk -v r="$ratio" -v t="$target" -v b="$bound" 'BEGIN {
        if (r == "") print "not measured"
        else if (t == "-") print "–"
        else print (b == "least" ? r >= t + 0 : r <= t + 0) ? "yes" : "**no**" }')
    if [ "$target" = - ]; then target=–; else target="$sign $target"; fi
    [ -z "$ratio" ] || ratio=$(shorten "$ratio")
    if [ -n "$high" ] && [ "$low" != "$high" ]; then ratio+=" ($(shorten "$low") … $(shorten "$high"))"; fi
    echo "| $workload | $what | $target | $ratio | $reached |"
}

target_rows() {
    local workload what figure of bound target
    while IFS='|' read -r workload what figure of bound target; do
        if [ -n "$workload" ] && wants "$workload" && { [ "$QUICK" = no ] || [ -n "$(spread_of "$figure")" ]; }; then
            target_row "$workload" "$what" "$figure" "$of" "$bound" "$target"
        fi
    done <<<"$TARGETS"
}

figure_rows() {
    local name unit what low median high
    while IFS='|' read -r name unit what; do
        [ -n "$name" ] || continue
        read -r low median high <<<"$(spread_of "$name")"
        [ -z "$low" ] ||
            echo "| $name | $unit | $(shorten "$low") | $(shorten "$median") | $(shorten "$high") | $what |"
    done <<<"$FIGURE_NAMES"
}

step_rows() {
    local step
    for step in $(seq "$STEPS"); do
        echo "| $((step * STEP_SECONDS)) | $(at_step step_rate "$step" | awk '{ printf "%.0f", $1 }') |" \
            "$(at_step step_table "$step") | $(at_step step_indexes "$step") | $(at_step step_waiting "$step") |"
    done
}

owner_rows() {
    local way owners clients
    for way in record round_trips; do
        for owners in $OWNER_COUNTS; do
            printf '| %s | %s |' $way "$owners"
            for clients in $CLIENT_COUNTS; do
                printf ' %s |' "$(shorten "$(median_of "owners/$way/$owners/$clients")")"
            done
            echo
        done
    done
}

# Where a run was stopped and gone on with.
sittings() {
    local count
    count=$(grep -c '^sitting' "$FIGURES")
    [ "$count" = 1 ] || echo " in $count sittings"
}

report() {
    cat <<TEXT
# Results

Written by \`$COMMAND\`$(sittings) on $(date -u +%Y-%m-%d), at $(git -C "$ROOT" rev-parse --short HEAD).

- Machine: $(nproc) × $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(awk '/^MemTotal/ { printf "%.0f GB", $2 / 1048576 }' /proc/meminfo); load before the run $(sed -n 's/^sitting\t//p' "$FIGURES" | paste -sd ' ').
- $("$(bin_of "$MAJOR")/postgres" --version); $(rustc --version); exa_billing $(sed -n 's/^version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml" | head -n 1), optimised build.
- pgbench -M prepared, $CLIENTS clients, 2 threads, 20,000 users, 1,000 organizations, rounds: $ROUNDS, interleaved, $SECONDS_PER_RUN s a run.
- $(printf '%s; ' "${SETTINGS[@]}" | sed 's/; $//'); the rest as PostgreSQL has it.
- W7: $QUEUE_ROWS rows. W8 and W13: $STEPS steps of $STEP_SECONDS s. W9 and W11: $CHARGES charges. W10: $OWNERS owners, 720 hours each. W12: $LOG_ROWS rows.

## Targets

Ratios of medians; in brackets the lowest and the highest ratio of a round.

| # | what | target | measured | reached |
|---|---|---|---|---|
$(target_rows)

## Figures

| figure | unit | min | median | max | what exactly was measured |
|---|---|---|---|---|---|
$(figure_rows)
TEXT
    if [ -n "$(spread_of step_rate)" ]; then
        cat <<TEXT

## W8, step by step

| second | charges/s | queue, bytes | its indexes, bytes | rows waiting |
|---|---|---|---|---|
$(step_rows)
TEXT
    fi
    if wants owners && [ -n "$(spread_of owners/record/1/1)" ]; then
        cat <<TEXT

## Owners and clients

Charges per second with so many clients, medians; drawn in [docs/throughput.svg](../docs/throughput.svg).

| way | owners | ${CLIENT_COUNTS// / | } |
|---|---|---|---|---|---|---|
$(owner_rows)
TEXT
    fi
    if [ ${#FAILED[@]} != 0 ]; then printf '\nNot measured to the end: %s.\n' "${FAILED[*]}"; fi
}
