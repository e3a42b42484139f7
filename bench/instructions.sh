#!/usr/bin/env bash
# Counts the instructions that a server spends on one transaction of pgbench scripts: a figure that does not
# depend on what else the machine does. One session on a server of its own under valgrind, nothing in the
# background; what 1,000 further transactions of the session add, divided by 1,000.
#
#   bench/instructions.sh                     floor and record
#   bench/instructions.sh record check …      scripts of bench/sql, or files of your own
#
# Profiles are left in the build's work directory, for callgrind_annotate.

# shellcheck source=bench/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

DIR=$WORK/instructions
PROFILES=$WORK/callgrind
FEW=200 # so that what a session does once does not count
MANY=1200

start_under_valgrind() {
    as_postgres valgrind --tool=callgrind --vgdb=no --trace-children=yes --collect-atstart=no \
        --toggle-collect=PostgresMain --callgrind-out-file="$PROFILES/out.%p" \
        "$(bin_of "$MAJOR")/postgres" -D "$DIR/data" -c "$EXTENSION.databases=" -c autovacuum=off \
        </dev/null >"$PROFILES/server.log" 2>&1 &
    local began=$SECONDS
    until sql prepared 'SELECT 1' >/dev/null 2>&1; do
        [ $((SECONDS - began)) -lt 120 ] || { tail -n 5 "$PROFILES/server.log" >&2 && die "no server under valgrind"; }
        sleep 1
    done
}

# profile SCRIPT COUNT: instructions of a session that runs it so often; its profile becomes SCRIPT.COUNT.
profile() {
    local script=$1 count=$2 before after file
    before=$(profiles)
    as_postgres "$(bin_of "$MAJOR")/pgbench" -n -M prepared -h "$DIR" -p "$PORT" -U postgres -c 1 -t "$count" \
        "${OPTIONS[@]}" -f "$DIR/$script.sql" prepared >"$PROFILES/$script.out" 2>&1 ||
        { tail -n 5 "$PROFILES/$script.out" >&2 && die "pgbench of $script failed"; }
    after=$before
    until [ "$after" != "$before" ]; do # it is written when the session has ended
        sleep 1
        after=$(profiles)
    done
    sleep 1
    # pgbench asks for the server's version in a session of its own, which is the smaller one
    file=$(comm -13 <(echo "$before") <(profiles) | xargs -r ls -S | head -n 1)
    mv "$file" "$PROFILES/$script.$count"
    awk '/^(summary|totals):/ { print $2; exit }' "$PROFILES/$script.$count"
}

profiles() { find "$PROFILES" -name 'out.*' -size +0 | sort; }

OPTIONS=(-D users=20000 -D organizations=1)
[ $# -gt 0 ] || set -- floor record

ensure_packages valgrind
make_work
trap 'stop_and_remove "$DIR"' EXIT
trap 'exit 130' INT TERM
rm -rf "$PROFILES"
mkdir -p "$PROFILES"
give_to_postgres "$PROFILES"
start_bench_server
server_stop "$DIR"
step "Starting it under valgrind" start_under_valgrind
for script in "$@"; do
    if [ -f "$script" ]; then
        install -m 644 "$script" "$DIR"
        script=$(basename "$script" .sql)
    fi
    few=$(profile "$script" $FEW)
    many=$(profile "$script" $MANY)
    note "$script: $(((many - few) / (MANY - FEW))) instructions a transaction"
done
note "profiles: $PROFILES"
