# Throughput against the number of owners and of clients, for docs/throughput.svg; part of bench/run.sh.

# shellcheck shell=bash disable=SC2153 # run.sh has the settings

OWNER_COUNTS="1 10 1000 20000"
CLIENT_COUNTS="1 4 16 32 64"

part_owners() {
    new_database owners
    warm measure_cell record 20000 32
    warm measure_cell round_trips 20000 32
    rounds each_number_of_owners
    books_are_clean owners
    drop_database owners
    THROUGHPUT=$WORK/bench-throughput
    if [ "$RESULTS" = "$BENCH/RESULTS.md" ]; then THROUGHPUT=$BENCH/throughput; fi
    throughput_table >"$THROUGHPUT.tsv"
    "$BENCH/chart.sh" "$THROUGHPUT.tsv" >/dev/null
}

each_number_of_owners() {
    local owners clients way
    for owners in $OWNER_COUNTS; do
        for clients in $CLIENT_COUNTS; do
            for way in record round_trips; do
                measure_cell $way "$owners" "$clients"
            done
        done
    done
}

measure_cell() { # WAY OWNERS CLIENTS
    # shellcheck disable=SC2034 # rate uses them
    local CLIENTS=$3 SECONDS_PER_RUN=$(((SECONDS_PER_RUN + 1) / 2))
    measure "owners/$1/$2/$3" rate owners "$1" -D "users=$2"
    drain owners
}

throughput_table() {
    printf 'way\towners\tclients\tmin\tmedian\tmax\n'
    local owners clients way low median high
    for way in record round_trips; do
        for owners in $OWNER_COUNTS; do
            for clients in $CLIENT_COUNTS; do
                read -r low median high <<<"$(spread_of "owners/$way/$owners/$clients")"
                printf '%s\t%s\t%s\t%.0f\t%.0f\t%.0f\n' $way "$owners" "$clients" "$low" "$median" "$high"
            done
        done
    done
}
