#!/usr/bin/env bash
# Builds the extension, installs it into a private PostgreSQL, starts a private
# server and runs the tests against it.
#
#   scripts/test.sh              PostgreSQL 15
#   scripts/test.sh 16           another major release
#   scripts/test.sh others       every further major release that can be had
#   scripts/test.sh all          both of these
#   scripts/test.sh 15 -- --test usage some_name
#                                only what `cargo test` selects with these words

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

OTHER_MAJORS="16 17 18"
NEWEST_MAJOR=18
RUN=
OLD_PG_BINS= # of the older releases that pg_upgrade is tested from

clean_up() { [ -z "$RUN" ] || stop_and_remove "$RUN"; }
trap clean_up EXIT
trap 'exit 130' INT TERM

# The test programs speak to a server only and contain nothing of it. So those
# built for the default major serve for all, which saves minutes for each.
server_tests() { # MAJOR CARGO-TEST-ARGUMENT...
    local major=$1 share=1
    shift
    # Tests wait for a server most of their time: so twice as many as processors run at once.
    # what the proof suite tries at random differs little between releases
    [ "$major" = $DEFAULT_MAJOR ] || share=10
    EXA_BILLING_PG_BIN=$(bin_of "$major") \
        EXA_BILLING_WORK=$WORK \
        EXA_BILLING_TEST_DIR=$RUN \
        EXA_BILLING_TEST_TEMPLATE=$(template_of "$major") \
        EXA_BILLING_TEST_HOST=$RUN/shared \
        EXA_BILLING_TEST_PORT=$PORT \
        EXA_BILLING_TEST_LOG=$RUN/shared/server.log \
        EXA_BILLING_OLD_PG_BINS=$OLD_PG_BINS \
        EXA_BILLING_ISOLATION=$(isolation_tester) \
        EXA_BILLING_EXPORTER=$EXPORTER \
        EXA_BILLING_PROOF_SHARE=$share \
        RUST_TEST_THREADS="${RUST_TEST_THREADS:-$(($(nproc) * 2))}" \
        cargo_for $DEFAULT_MAJOR test "$@"
}

# Where the servers of a run keep their data. Each test has a database of hundreds of small files: in
# memory, where there is plenty, making and dropping them costs a fraction.
IN_MEMORY=/dev/shm/${WORK##*/}
place_of_runs() {
    local free available
    free=$(df --output=avail -k /dev/shm 2>/dev/null | tail -n 1)
    available=$(awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo)
    if [ "${free:-0}" -ge 8000000 ] && [ "${available:-0}" -ge 12000000 ]; then
        mkdir -p "$IN_MEMORY"
        chmod a+rx "$IN_MEMORY"
        echo "$IN_MEMORY"
    else
        echo "$WORK"
    fi
}

# Servers of runs that were killed and could not clean up after themselves.
remove_leftovers() {
    local dir
    for dir in "$WORK"/t[0-9]*-* "$IN_MEMORY"/t[0-9]*-*; do
        if [ -d "$dir" ] && ! kill -0 "${dir##*-}" 2>/dev/null; then stop_and_remove "$dir"; fi
    done
}

start_shared_server() { # MAJOR
    remove_leftovers
    RUN=$(place_of_runs)/t$1-$$
    mkdir "$RUN"
    give_to_postgres "$RUN"
    server_start "$RUN/shared" "$1"
}

# provide_old_releases MAJOR CARGO-TEST-ARGUMENT...: pg_upgrade is tested where the newest release is,
# from 16 and from what else is installed already. Elsewhere its tests are left out: $SKIPPED.
SKIPPED=()
provide_old_releases() {
    local major=$1 old
    shift
    OLD_PG_BINS=
    SKIPPED=()
    case " $* " in
    *" pg_upgrade "* | *" * "*) ;;
    *) return 0 ;; # they are not asked for
    esac
    if [ "$major" != $NEWEST_MAJOR ]; then
        note "left out: pg_upgrade, which is tested with $NEWEST_MAJOR"
    else
        for old in 16 17; do
            if [ $old = 17 ] && [ ! -x "$(pg_config_of $old)" ]; then
                note "left out: pg_upgrade from $old, which is not installed here"
            elif ! provide $old; then
                note "left out: pg_upgrade from $old: not to be had here: $WHY_NOT"
            else
                step "Building the extension for PostgreSQL $old, to upgrade from" install_extension $old
                OLD_PG_BINS=$OLD_PG_BINS${OLD_PG_BINS:+:}$(bin_of $old)
            fi
        done
    fi
    [ -n "$OLD_PG_BINS" ] || SKIPPED=(--skip pg_upgrade_)
}

test_major() { # MAJOR CARGO-TEST-ARGUMENT...
    local major=$1 result=0
    shift
    if [ "$major" = $DEFAULT_MAJOR ] && [ $# = 0 ]; then
        step "Tests that need no server" pure_tests --lib
    fi
    provide_exporter
    [ "$major" != $DEFAULT_MAJOR ] || provide_pg_cron
    step "Building the extension for PostgreSQL $major and installing it" install_extension "$major"
    step "Starting a server ($("$(bin_of "$major")/postgres" --version))" start_shared_server "$major"
    if [ $# = 0 ]; then set -- --no-fail-fast --test '*'; fi
    provide_old_releases "$major" "$@"
    if [ ${#SKIPPED[@]} != 0 ]; then
        case " $* " in
        *" -- "*) set -- "$@" "${SKIPPED[@]}" ;;
        *) set -- "$@" -- "${SKIPPED[@]}" ;;
        esac
    fi
    step "Tests on PostgreSQL $major" server_tests "$major" "$@" || result=$?
    if [ $result != 0 ]; then
        # the directory goes, the log of the server is worth keeping
        cp "$RUN/shared/server.log" "$WORK/failed-$major.log"
        note "the log of the shared server: $WORK/failed-$major.log"
    fi
    stop_and_remove "$RUN"
    RUN=
    return $result
}

test_others() {
    local major failed=() summary=() began
    for major in $OTHER_MAJORS; do
        began=$SECONDS
        if ! provide "$major"; then
            summary+=("PostgreSQL $major: not to be had here: $WHY_NOT")
            # a subshell with errexit, which a condition would switch off
        else
            set +e
            (
                set -e
                trap clean_up EXIT
                test_major "$major"
            )
            # shellcheck disable=SC2181 # a condition would switch errexit off
            if [ $? = 0 ]; then
                summary+=("PostgreSQL $major: passed ($((SECONDS - began)) s)")
            else
                summary+=("PostgreSQL $major: FAILED")
                failed+=("$major")
            fi
            set -e
        fi
    done
    say "Summary"
    for major in "${summary[@]}"; do note "$major"; done
    [ ${#failed[@]} = 0 ]
}

which=${1:-$DEFAULT_MAJOR}
[ $# = 0 ] || shift
if [ "${1:-}" = -- ]; then shift; fi

setup $DEFAULT_MAJOR
case $which in
all)
    test_major $DEFAULT_MAJOR
    test_others
    ;;
others) test_others ;;
*)
    provide "$which" || die "PostgreSQL $which: not to be had here: $WHY_NOT"
    test_major "$which" "$@"
    ;;
esac
