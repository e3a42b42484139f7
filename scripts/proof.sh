#!/usr/bin/env bash
# The long form of the proof suite, of which the tests run a short one; docs/GUARANTEES.md
# tells what each part shows. Every part prints the command that repeats what failed.
#
#   scripts/proof.sh                        all parts, then histories until it is interrupted
#   scripts/proof.sh histories --minutes 5  random histories against the model
#   scripts/proof.sh crashes --rounds 50    kill -9 under load
#   scripts/proof.sh isolation              every order of the steps of two sessions
#   scripts/proof.sh arguments --rounds N   random arguments to every function
#   scripts/proof.sh faults --rounds 10     disk full, locks, time-outs, cancellations, two phases
#   scripts/proof.sh calendar               month ends, leap days, changes of the clock
#   scripts/proof.sh fuzz --minutes 2       documents made by a fuzzer, each target that long
#   scripts/proof.sh mutants                planted faults in the pure rules
#
# Options: --seed N (that seed again), --first N (the first seed), --rounds N, --minutes N,
# --major N (a PostgreSQL other than 15).

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

FIGURES=$(mktemp)
trap 'rm -f "$FIGURES"' EXIT

# server_part NAME: one that runs as a test program against a server.
server_part() {
    EXA_BILLING_PROOF_SEED=$SEED \
        EXA_BILLING_PROOF_FIRST=$FIRST \
        EXA_BILLING_PROOF_ROUNDS=$ROUNDS \
        EXA_BILLING_PROOF_MINUTES=$MINUTES \
        EXA_BILLING_PROOF_FIGURES=$FIGURES \
        "$ROOT/scripts/test.sh" "$MAJOR" -- --test "proof_$1" -- --nocapture
}

summary() {
    say "Figures"
    sed 's/\t/: /; s/^/    /' "$FIGURES"
}

# Seeds that nobody has tried yet, unless they are given.
new_seeds() { FIRST=${FIRST:-$(date +%s)000}; }

everything() {
    new_seeds
    note "the first seed is $FIRST"
    server_part isolation
    server_part calendar
    ROUNDS=10 server_part faults
    ROUNDS=50 server_part crashes
    ROUNDS=500 server_part arguments # a million calls
    MINUTES=${MINUTES:-2} "$ROOT/scripts/fuzz.sh"
    "$ROOT/scripts/mutants.sh"
    summary
    say "Histories, until they are interrupted"
    MINUTES=${MINUTES:-1000000} server_part histories
}

case $PART in
all) everything ;;
histories | arguments | crashes | faults)
    [ -n "$SEED" ] || new_seeds
    server_part "$PART"
    summary
    ;;
isolation | calendar)
    server_part "$PART"
    summary
    ;;
fuzz) MINUTES=${MINUTES:-2} exec "$ROOT/scripts/fuzz.sh" ;;
mutants) exec "$ROOT/scripts/mutants.sh" ;;
*) usage ;;
esac
