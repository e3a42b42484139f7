#!/usr/bin/env bash
# The long form of the proof suite, of which the tests run a short one; docs/GUARANTEES.md
# tells what each part shows. Every part prints the command that repeats what failed.
#
#   scripts/proof.sh                        all parts, then histories until it is interrupted or one fails
#   scripts/proof.sh histories --minutes 5  random histories against the model
#   scripts/proof.sh crashes --rounds 50    kill -9 under load
#   scripts/proof.sh isolation              every order of the steps of two sessions
#   scripts/proof.sh arguments --rounds N   random arguments to every function
#   scripts/proof.sh faults --rounds 10     disk full, locks, time-outs, cancellations, two phases
#   scripts/proof.sh calendar --rounds 200  month ends, leap days, changes of the clock
#   scripts/proof.sh fuzz --minutes 2       documents made by a fuzzer, each target that long
#   scripts/proof.sh mutants                planted faults in the pure rules
#
# Options: --seed N (that seed again), --first N (the first seed), --rounds N, --minutes N,
# --major N (a PostgreSQL other than 15). Of all parts --minutes is for those that run for a time, the
# fuzzer and the histories at the end, which are then not endless.

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
    sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit "${1:-2}"
}

PART=all
SEED=
FIRST=
ROUNDS=
MINUTES=
MAJOR=$DEFAULT_MAJOR

if [ $# -gt 0 ] && [[ $1 != -* ]]; then
    PART=$1
    shift
fi
while [ $# -gt 0 ]; do
    case $1 in -h | --help) usage 0 ;; esac
    [[ ${2:-} =~ ^[0-9]+$ ]] || usage
    case $1 in
    --seed) SEED=$2 ;;
    --first) FIRST=$2 ;;
    --rounds) ROUNDS=$2 ;;
    --minutes) MINUTES=$2 ;;
    --major) MAJOR=$2 ;;
    *) usage ;;
    esac
    shift 2
done

# what is counted in rounds has its own number of them where all parts run
[ "$PART" != all ] || [ -z "$SEED$ROUNDS" ] || usage

FAILED=()
MAY_BE_INTERRUPTED=no
EXA_BILLING_PROOF_FIGURES=$(mktemp)
export EXA_BILLING_PROOF_FIGURES

# finish: whatever the run ends by, its figures are shown.
finish() {
    local status=$?
    if [ -s "$EXA_BILLING_PROOF_FIGURES" ]; then
        say "Figures"
        sed 's/\t/: /; s/^/    /' "$EXA_BILLING_PROOF_FIGURES"
    fi
    rm -f "$EXA_BILLING_PROOF_FIGURES"
    if [ ${#FAILED[@]} != 0 ]; then
        say "FAILED: ${FAILED[*]}"
        status=1
    fi
    exit $status
}

interrupted() {
    [ $MAY_BE_INTERRUPTED = no ] || exit 0
    exit 130
}

trap finish EXIT
trap interrupted INT TERM

# server_part NAME: one that runs as a test program against a server.
server_part() {
    EXA_BILLING_PROOF_SEED=$SEED \
        EXA_BILLING_PROOF_FIRST=$FIRST \
        EXA_BILLING_PROOF_ROUNDS=$ROUNDS \
        EXA_BILLING_PROOF_MINUTES=$MINUTES \
        "$ROOT/scripts/test.sh" "$MAJOR" -- --test "proof_$1" -- --nocapture
}

fuzz_part() { MINUTES=${MINUTES:-2} "$ROOT/scripts/fuzz.sh"; }

# Seeds that nobody has tried yet, unless they are given.
new_seeds() { FIRST=${FIRST:-$(date +%s)000}; }

# attempt NAME COMMAND...: one of several parts. The others are tried when it fails.
attempt() {
    local name=$1
    shift
    "$@" || {
        note "FAILED: $name"
        FAILED+=("$name")
    }
}

# counted NAME [ROUNDS]: a part that ends by itself, however long it takes.
counted() { ROUNDS=${2:-} MINUTES='' attempt "$1" server_part "$1"; }

# histories_without_end: in rounds of some minutes, so that there are figures whenever it is interrupted.
histories_without_end() {
    MAY_BE_INTERRUPTED=yes
    if [ -n "$MINUTES" ]; then
        attempt histories server_part histories
        return
    fi
    say "Histories, until they are interrupted"
    while [[ " ${FAILED[*]} " != *" histories "* ]]; do
        new_seeds
        MINUTES=10 attempt histories server_part histories
        FIRST=
    done
}

everything() {
    local has_fuzzer=yes
    # what would otherwise be missed after hours
    "$ROOT/scripts/mutants.sh" --tools
    "$ROOT/scripts/fuzz.sh" --tools || has_fuzzer=no
    new_seeds
    note "the first seed is $FIRST"
    counted isolation
    counted calendar 200
    counted faults 10
    counted crashes 50
    counted arguments 500 # a million calls
    if [ $has_fuzzer = yes ]; then
        attempt fuzz fuzz_part
    else
        figure fuzz "left out, for its tools cannot be installed here"
    fi
    attempt mutants "$ROOT/scripts/mutants.sh"
    histories_without_end
}

case $PART in
all) everything ;;
histories | arguments | crashes | faults | calendar)
    [ -n "$SEED" ] || new_seeds
    server_part "$PART"
    ;;
isolation) server_part isolation ;;
fuzz) fuzz_part ;;
mutants) "$ROOT/scripts/mutants.sh" ;;
*) usage ;;
esac
