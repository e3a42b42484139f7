#!/usr/bin/env bash
# Measures charging, posting and reading against their peers, in interleaved rounds on one private server.
# Nothing else should run on the machine meanwhile.
#
#   bench/run.sh                      everything, into bench/RESULTS.md: more than an hour
#   bench/run.sh --quick              the main rows, reduced, to the screen: three minutes
#   bench/run.sh --only W5,W6         some of it, to the screen
#   bench/run.sh --continue           goes on with the last run where it was stopped
#
# Parts: W1 … W13 as in bench/RESULTS.md, wal (what a charge writes), owners (docs/throughput.svg).
# Options: --rounds N (3), --seconds N (10 a run), --step-seconds N (60: one of the ten steps of W8 and
# W13), --queue-rows N (W7), --charges N (W9, W11), --owners N (W10), --log-rows N (W12).

# shellcheck source=bench/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=bench/charges.sh
. "$BENCH/charges.sh"
# shellcheck source=bench/posting.sh
. "$BENCH/posting.sh"
# shellcheck source=bench/history.sh
. "$BENCH/history.sh"
# shellcheck source=bench/written.sh
. "$BENCH/written.sh"
# shellcheck source=bench/owners.sh
. "$BENCH/owners.sh"
# shellcheck source=bench/report.sh
. "$BENCH/report.sh"

usage() {
    sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit "${1:-2}"
}

ALL=W1,W2,W3,W4,W5,W6,W7,W8,W9,W10,W11,W12,W13,wal,owners
SELECTED=$ALL
QUICK=no
CONTINUE=no
ROUNDS=3
SECONDS_PER_RUN=10
STEPS=10
STEP_SECONDS=60
QUEUE_ROWS=1000000
CHARGES=1000000
OWNERS=10000
LOG_ROWS=20000000
RESULTS=$BENCH/RESULTS.md # only of a whole run
COMMAND="bench/run.sh${*:+ $*}"
COMMAND=${COMMAND/ --continue/}

while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) usage 0 ;;
    --quick)
        QUICK=yes
        SELECTED=W1,W2,W3,W4,W5,W6,W7,W9,W11
        ROUNDS=1 SECONDS_PER_RUN=3 QUEUE_ROWS=100000 CHARGES=100000
        shift
        ;;
    --continue)
        CONTINUE=yes
        shift
        ;;
    --only)
        SELECTED=${2:?}
        shift 2
        ;;
    *)
        [[ ${2:-} =~ ^[0-9]+$ ]] || usage
        case $1 in
        --rounds) ROUNDS=$2 ;;
        --seconds) SECONDS_PER_RUN=$2 ;;
        --step-seconds) STEP_SECONDS=$2 ;;
        --queue-rows) QUEUE_ROWS=$2 ;;
        --charges) CHARGES=$2 ;;
        --owners) OWNERS=$2 ;;
        --log-rows) LOG_ROWS=$2 ;;
        *) usage ;;
        esac
        shift 2
        ;;
    esac
done
[ "$COMMAND" = bench/run.sh ] || RESULTS=$WORK/bench-results.md

[ $QUICK = yes ] || SELECTED+=,${SELECTED//,/+,}+ # and what is measured only to compare

FAILED=()

# begin_figures: empties the file of figures, or keeps of it the parts that were measured to their end. What was
# measured of another commit, or otherwise, does not belong to the same run.
begin_figures() {
    local run
    run="$(git -C "$ROOT" rev-parse --short HEAD) $COMMAND"
    if [ $CONTINUE = yes ]; then
        [ "$(sed -n '1s/^run\t//p' "$FIGURES")" = "$run" ] || die "the last run was not: $run"
        awk -F '\t' '{ part = part $0 "\n" }
                     $1 ~ /^(run|done|sitting)$/ { printf "%s", part }
                     $1 ~ /^(run|done|failed|sitting)$/ { part = "" }' "$FIGURES" >"$FIGURES.kept"
        mv "$FIGURES.kept" "$FIGURES"
    else
        printf 'run\t%s\n' "$run" >"$FIGURES"
    fi
    printf 'sitting\t%s\n' "$(cut -d ' ' -f 1 /proc/loadavg)" >>"$FIGURES"
}

# part NAME WORKLOAD...: measures it if one of its workloads is selected. One that fails stops no other.
part() {
    local name=$1
    shift
    wants "$@" || return 0
    if grep -q "^done"$'\t'"$name\$" "$FIGURES"; then
        note "measured before: $name"
        return 0
    fi
    say "Measuring: $name"
    set +e
    (
        set -e
        "part_$name"
    )
    # shellcheck disable=SC2181 # a condition would switch errexit off
    if [ $? = 0 ]; then
        printf 'done\t%s\n' "$name" >>"$FIGURES"
    else
        printf 'failed\t%s\n' "$name" >>"$FIGURES"
        FAILED+=("$name")
    fi
    set -e
}

everything() {
    trap 'stop_and_remove "$DIR"' EXIT
    trap 'exit 130' INT TERM
    make_work
    begin_figures
    start_bench_server
    part charges W1 W2 W3 W4 W5 W6 W7 W13
    part written wal
    part queue W7
    part minutes W8
    part history W9 W11
    part sweep W10
    part log W12
    part held W13
    part owners owners
    report >"$RESULTS.new"
    mv "$RESULTS.new" "$RESULTS"
    cat "$RESULTS"
    note "in $RESULTS; every figure of every round: $FIGURES"
    [ ${#FAILED[@]} = 0 ] || die "not measured to the end: ${FAILED[*]}"
}

# The shell reads a script as it goes; by the time it is here, this one may be edited.
everything
exit
