#!/usr/bin/env bash
# Tries the pure rules with documents that a fuzzer makes: fuzz/src says what must hold of each answer.
#
#   scripts/fuzz.sh                each target, for two minutes
#   scripts/fuzz.sh batch          only that one: response, batch, column_map or settings
#   scripts/fuzz.sh batch FILE     that one again with one document, such as one that failed
#   scripts/fuzz.sh --tools        only installs what it needs
#   MINUTES=10 scripts/fuzz.sh     longer
#
# What the fuzzer finds worth keeping stays in target/fuzz-corpus and is where the next run begins; the
# documents in fuzz/seeds are only read. Needs a nightly toolchain, which knows the sanitizers: always
# the same one, since another may know them otherwise.

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

NIGHTLY=nightly-2026-05-20
CARGO_FUZZ=0.13.1
TARGETS=(response batch column_map settings)
MAX_BYTES=4096
MINUTES=${MINUTES:-2}
CORPORA=$TARGET_BASE/fuzz-corpus
ARTEFACTS=$TARGET_BASE/fuzz-artefacts
FOUND=no

usage() { die "usage: scripts/fuzz.sh [--tools|$(
    IFS='|'
    echo "${TARGETS[*]}"
) [FILE]]"; }

ensure_nightly() {
    command -v rustup >/dev/null || die "rustup is needed, to have the toolchain $NIGHTLY"
    ! rustup run "$NIGHTLY" rustc --version >/dev/null 2>&1 || return 0
    say "Installing the toolchain $NIGHTLY (once, a minute or two)"
    rustup toolchain install "$NIGHTLY" --profile minimal --no-self-update ||
        die "the toolchain $NIGHTLY cannot be installed here"
}

ensure_cargo_fuzz() {
    [ "$(cargo fuzz --version 2>/dev/null)" != "cargo-fuzz $CARGO_FUZZ" ] || return 0
    say "Installing cargo-fuzz $CARGO_FUZZ (once, a minute or two)"
    # not the toolchain of this directory: it is a program like any other
    (cd / && cargo install --quiet --locked cargo-fuzz --version "$CARGO_FUZZ") ||
        die "cargo-fuzz $CARGO_FUZZ cannot be installed here"
}

# fuzz COMMAND...: cargo-fuzz, in the crate of the targets. RUSTFLAGS are its own to set.
fuzz() { (cd "$ROOT" && CARGO_TARGET_DIR=$TARGET_BASE/fuzz cargo "+$NIGHTLY" fuzz "$@"); }

# run_target TARGET: until it has run for so many minutes, or something fails.
run_target() {
    local target=$1 log=$ARTEFACTS/$1.log artefact result=0
    mkdir -p "$CORPORA/$target" "$ARTEFACTS/$target"
    fuzz run "$target" "$CORPORA/$target" "$ROOT/fuzz/seeds/$target" -- \
        -max_total_time=$((MINUTES * 60)) -max_len=$MAX_BYTES -dict="$ROOT/fuzz/json.dict" \
        -artifact_prefix="$ARTEFACTS/$target/" -print_final_stats=1 -verbosity=1 >"$log" 2>&1 || result=$?
    if [ $result = 0 ]; then
        tell "$target" "$log"
        return
    fi
    FOUND=yes
    grep -A 4 'panicked at' "$log" >&2 || tail -n 20 "$log" >&2
    artefact=$(sed -n 's/.*Test unit written to \(.*\)/\1/p' "$log" | tail -n 1)
    if [ -n "$artefact" ]; then
        note "FAILED: $target, with the document $artefact"
        note "again: scripts/fuzz.sh $target $artefact"
    else
        note "FAILED: $target; all it said is in $log"
    fi
}

# tell TARGET LOG: how much was tried, and how much of the program that has reached.
tell() {
    local executions seconds coverage documents what
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$2")
    seconds=$((MINUTES * 60))
    coverage=$(sed -n 's,.* cov: \([0-9]*\).*,\1,p' "$2" | tail -n 1)
    documents=$(find "$CORPORA/$1" -type f | wc -l)
    what="$1: ${executions:-0} executions in $seconds s, ${coverage:-0} edges reached, $documents documents kept"
    figure fuzz "$what"
}

[ $# -le 2 ] || usage
[[ $MINUTES =~ ^[1-9][0-9]*$ ]] || die "MINUTES is a number of minutes: $MINUTES"
if [ $# -gt 0 ] && [ "$1" != --tools ]; then
    case " ${TARGETS[*]} " in *" $1 "*) TARGETS=("$1") ;; *) usage ;; esac
fi
ensure_nightly
ensure_cargo_fuzz
[ "${1:-}" != --tools ] || exit 0
mkdir -p "$ARTEFACTS"
if [ $# = 2 ]; then
    file=$(realpath -e "$2") || die "there is no document $2"
    fuzz run "$1" "$file"
    exit
fi
step "Building what is fuzzed" fuzz build
for target in "${TARGETS[@]}"; do
    step "Fuzzing $target for $MINUTES min" run_target "$target"
done
[ $FOUND = no ]
