# What a charge writes: log records and index entries, counted in the write-ahead log; part of bench/run.sh.

# shellcheck shell=bash disable=SC2153 # run.sh has the settings

part_written() {
    new_database written
    sql written 'CREATE EXTENSION pg_walinspect'
    worker written stop
    autovacuum off # it writes too, at any moment
    rounds measure_written
    autovacuum on
    books_are_clean written
    drop_database written
}

autovacuum() {
    sql postgres "ALTER SYSTEM SET autovacuum = $1" 'SELECT pg_reload_conf()' >/dev/null
    sleep 1
}

measure_written() {
    local charges=$((CLIENTS * 500))
    count_written floor $charges pgbench_written floor
    count_written round_trips $charges pgbench_written round_trips
    count_written record $charges pgbench_written record
    count_written posting $charges run_file written post_all.sql
}

pgbench_written() { run_pgbench written "$1" -D users=20000 -c "$CLIENTS" -j 2 -t 500; }

# count_written WHAT CHARGES COMMAND...: for each charge, bytes of records, bytes with page images, and
# entries put into indexes.
count_written() {
    local name=$1 charges=$2 from row
    shift 2
    from=$(sql written 'SELECT pg_current_wal_flush_lsn()')
    "$@"
    row=$(sql written "SELECT sum(record_size), sum(combined_size), sum(count) FILTER (
            WHERE \"resource_manager/record_type\" ~ '^Btree/(INSERT_LEAF|INSERT_POST|SPLIT_[LR])\$')
        FROM pg_get_wal_stats('$from', pg_current_wal_flush_lsn(), true)")
    figure "wal_$name" "$(quotient "${row%%|*}" "$charges")"
    figure "wal_images_$name" "$(quotient "$(cut -d '|' -f 2 <<<"$row")" "$charges")"
    figure "entries_$name" "$(quotient "${row##*|}" "$charges")"
}
