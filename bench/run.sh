#!/usr/bin/env bash
# Measures charging against the floor, in interleaved rounds on one private server, and writes
# bench/RESULTS.md. Nothing else should run on the machine meanwhile.
#
#   bench/run.sh [SECONDS PER RUN, default 10] [ROUNDS, default 3]

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"

SECONDS_PER_RUN=${1:-10}
ROUNDS=${2:-3}
CLIENTS=32
WORKLOADS="floor spread one_user one_organization check"
DIR=$WORK/bench
BENCH=$ROOT/bench

trap 'stop_and_remove "$DIR"' EXIT

measure() { # WORKLOAD
    as_postgres "$(bin_of $DEFAULT_MAJOR)/pgbench" -n -M prepared -c $CLIENTS -j 2 -T "$SECONDS_PER_RUN" \
        -h "$DIR" -p "$PORT" -U postgres -f "$DIR/$1.sql" bench |
        sed -n 's/^tps = \([0-9]*\).*/\1/p'
}

# min, median and max of a list of numbers
spread_of() {
    tr -s ' ' '\n' <<<"$1" | sed '/^$/d' | sort -n |
        awk '{ v[NR] = $1 } END { print v[1], v[int((NR + 1) / 2)], v[NR] }'
}

report() {
    echo "# Results"
    echo
    echo "Written by \`bench/run.sh $SECONDS_PER_RUN $ROUNDS\` on $(date -u +%Y-%m-%d): $(nproc) cores,"
    echo "$(awk '/MemTotal/ { printf "%d GB", $2 / 1048576 }' /proc/meminfo), $("$(bin_of $DEFAULT_MAJOR)/postgres" --version)."
    echo "pgbench -M prepared, $CLIENTS clients, 20,000 users, all requests paid, posting running, fsync and"
    echo "synchronous_commit on, shared_buffers 1 GB. Transactions per second, $ROUNDS rounds, interleaved."
    echo
    echo "| workload | min | median | max | of the floor |"
    echo "|---|---|---|---|---|"
    local workload low middle high floor
    read -r _ floor _ <<<"$(spread_of "${TPS[floor]}")"
    for workload in $WORKLOADS; do
        read -r low middle high <<<"$(spread_of "${TPS[$workload]}")"
        awk -v w="$workload" -v l="$low" -v m="$middle" -v h="$high" -v f="$floor" \
            'BEGIN { printf "| %s | %d | %d | %d | %.2f |\n", w, l, m, h, m / f }'
    done
    echo
    echo "floor: one bare INSERT into a log with the same columns, checks and indexes. spread, one_user and"
    echo "one_organization: record_exa_usage of random users, of one exhausted user, of random users for one"
    echo "organization. check: check_exa_usage of random users."
}

setup $DEFAULT_MAJOR
step "Building an optimised extension" install_extension $DEFAULT_MAJOR --release
stop_and_remove "$DIR"
server_start "$DIR" $DEFAULT_MAJOR "$EXTENSION.databases = 'bench'" "fsync = on" \
    "shared_buffers = '1GB'" "max_wal_size = '8GB'" "checkpoint_timeout = '30min'"
install -m 644 "$BENCH"/sql/*.sql "$DIR" # where the server's user can read them
psql_in "$DIR" $DEFAULT_MAJOR -q -c 'CREATE DATABASE bench'
psql_in "$DIR" $DEFAULT_MAJOR -q -d bench -v ON_ERROR_STOP=1 -f - <"$BENCH/sql/prepare.sql" >/dev/null

declare -A TPS
for workload in $WORKLOADS; do TPS[$workload]=; done
for round in $(seq "$ROUNDS"); do
    for workload in $WORKLOADS; do
        tps=$(measure "$workload")
        TPS[$workload]+=" $tps"
        note "round $round, $workload: $tps/s"
    done
done
report | tee "$BENCH/RESULTS.md"
