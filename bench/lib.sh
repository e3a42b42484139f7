# What the measurements share: one private server, a database for each part, and a file of figures.
# Source it, do not run it.

# shellcheck shell=bash
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"

BENCH=$ROOT/bench
MAJOR=$DEFAULT_MAJOR
DIR=$WORK/bench
FIGURES=$WORK/bench-figures.tsv # name, round, value
CLIENTS=32
ROUND=1
SETTINGS=("fsync = on" "synchronous_commit = on" "shared_buffers = '1GB'" "max_wal_size = '8GB'"
    "checkpoint_timeout = '30min'" "max_worker_processes = 20" "$EXTENSION.late_usage_limit = '100d'")
# Each part has its own, so that none starts with what another left behind.
DATABASES=charges,queue,minutes,held,history,sweep,empty,filled,owners,written

# start_bench_server: a fresh server with an optimised build, and the databases that all others are copied
# from: bare has empty books, prepared those of many users.
start_bench_server() {
    setup "$MAJOR"
    step "Building an optimised extension" install_extension "$MAJOR" --release
    stop_and_remove "$DIR"
    server_start "$DIR" "$MAJOR" "$EXTENSION.databases = '$DATABASES'" "${SETTINGS[@]}"
    local script
    for script in "$BENCH"/sql/*.sql; do # where the server's user can read them
        sed "s|@DIR@|$DIR|" "$script" >"$DIR/${script##*/}"
    done
    sql postgres 'CREATE DATABASE bare'
    run_file bare books.sql peers.sql fill.sql
    sql postgres 'CREATE DATABASE prepared TEMPLATE bare'
    step "Preparing books" run_file prepared everybody.sql
    # for COPY: 1,000 rows
    awk 'BEGIN { for (n = 1; n <= 1000; n++) print "user-" n * 19 "\t/search\t5000\t5000\tt" }' >"$DIR/rows.copy"
    chmod -R a+rX "$DIR"/*.sql "$DIR/rows.copy"
}

sql() { # DATABASE STATEMENT...
    local database=$1 statement arguments=()
    shift
    for statement in "$@"; do arguments+=(-c "$statement"); done
    psql_in "$DIR" "$MAJOR" -qAt -v ON_ERROR_STOP=1 -d "$database" "${arguments[@]}"
}

run_file() { # DATABASE FILE...
    local database=$1 file
    shift
    for file in "$@"; do
        psql_in "$DIR" "$MAJOR" -qAt -v ON_ERROR_STOP=1 -d "$database" -f "$DIR/$file" >/dev/null
    done
}

# new_database NAME [TEMPLATE]: a copy, where the worker posts.
new_database() {
    sql postgres "CREATE DATABASE $1 TEMPLATE ${2:-prepared}"
    sql "$1" 'VACUUM ANALYZE' CHECKPOINT
    worker "$1" start
    wait_for_posting "$1"
}

worker() { sql "$1" "SELECT $EXTENSION.${2}_worker()" >/dev/null; } # DATABASE start|stop

drop_database() { sql postgres "DROP DATABASE IF EXISTS $1 WITH (FORCE)"; }

# wait_for_posting NAME: a worker is there and has posted a charge.
wait_for_posting() {
    sql "$1" "SELECT $EXTENSION.record_exa_usage('user-1', '/search', 5000)" >/dev/null
    wait_until_posted "$1"
}

unposted() { sql "$1" "SELECT count(*) FROM $EXTENSION.unposted_spend"; }

# drain DATABASE: until everything is posted, by hand and by the worker. What waits would be work that the next
# one who is measured has to share the machine with.
drain() {
    run_file "$1" post_all.sql
    wait_until_posted "$1" # the worker may be at the last batch
}

wait_until_posted() {
    local began=$SECONDS
    while [ "$(sql "$1" "SELECT EXISTS (SELECT FROM $EXTENSION.unposted_spend)")" = t ]; do
        [ $((SECONDS - began)) -lt 300 ] || die "nobody posts in database $1"
        sleep 0.2
    done
}

# books_are_clean DATABASE: dies where what was measured left wrong books behind.
books_are_clean() {
    [ "$(psql_in "$DIR" "$MAJOR" -qAt -v ON_ERROR_STOP=1 -d "$1" -f "$DIR/clean.sql")" = t ] ||
        die "the books of database $1 do not add up"
}

# ---------------------------------------------------------------- pgbench

# run_pgbench DATABASE SCRIPT OPTION...: leaves what pgbench says in $DIR/SCRIPT.out; dies when a transaction
# failed.
run_pgbench() {
    local database=$1 script=$2 out=$DIR/$2.out
    shift 2
    as_postgres "$(bin_of "$MAJOR")/pgbench" -n -M prepared -h "$DIR" -p "$PORT" -U postgres \
        "$@" -f "$DIR/$script.sql" "$database" >"$out" 2>&1 ||
        { tail -n 5 "$out" >&2 && die "pgbench of $script failed"; }
    grep -q '^number of failed transactions: 0 ' "$out" || die "transactions of $script failed: $out"
}

tps_of() { sed -n 's/^tps = \([0-9.]*\).*/\1/p' "$DIR/$1.out"; }
milliseconds_of() { sed -n 's/^latency average = \([0-9.]*\) ms.*/\1/p' "$DIR/$1.out"; }

# rate DATABASE SCRIPT OPTION...: transactions per second of all clients.
rate() {
    run_pgbench "$@" -c "$CLIENTS" -j 2 -T "$SECONDS_PER_RUN"
    tps_of "$2"
}

# milliseconds DATABASE SCRIPT COUNT: of one session, after it has run it once.
milliseconds() {
    run_pgbench "$1" "$2" -c 1 -t 1
    run_pgbench "$1" "$2" -c 1 -t "$3"
    milliseconds_of "$2"
}

# ---------------------------------------------------------------- figures

figure() { # NAME VALUE
    [ "$ROUND" != 0 ] || return 0 # a round to warm up
    printf '%s\t%s\t%s\n' "$1" "$ROUND" "$2" >>"$FIGURES"
    note "round $ROUND, $1: $(shorten "$2")"
}

# measure NAME COMMAND...: what the command prints is the figure. A substitution among the arguments of
# figure would let its failure pass.
measure() {
    local name=$1 value
    shift
    value=$("$@")
    figure "$name" "$value"
}

quotient() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.6g", a / b }'; }

# min, median and max of a figure, in full; nothing where it was not measured
spread_of() {
    awk -F '\t' -v name="$1" '$1 == name { print $3 }' "$FIGURES" | sort -g |
        awk '{ v[NR] = $1 }
             END { if (NR) print v[1], (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2, v[NR] }'
}

median_of() {
    local median
    read -r _ median _ <<<"$(spread_of "$1")"
    echo "$median"
}

shorten() { # NUMBER: three digits at least
    awk -v v="$1" 'BEGIN { printf (v >= 100 || v == int(v)) ? "%.0f" : (v >= 10 ? "%.1f" : "%.2f"), v }'
}

# warm COMMAND...: once, briefly and without figures, so that no first round pays for cold pages.
warm() {
    local ROUND=0 SECONDS_PER_RUN=1
    "$@"
}

# rounds COMMAND...: once for each round.
rounds() {
    # shellcheck disable=SC2153 # it is another
    for ROUND in $(seq "$ROUNDS"); do "$@"; done
    ROUND=1
}

# wants NAME...: whether one of these was selected.
wants() {
    local name
    for name in "$@"; do case ,$SELECTED, in *,"$name",*) return 0 ;; esac done
    return 1
}
