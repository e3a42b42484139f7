#!/usr/bin/env bash
# Plants faults in the pure rules, one at a time, and looks whether their tests notice.
#
#   scripts/mutants.sh                   all of them
#   scripts/mutants.sh --list            what would be planted
#   scripts/mutants.sh src/time.rs ...   only in these files
#   scripts/mutants.sh --tools           only installs what it needs
#
# docs/MUTANTS.md lists the faults that no test notices, each with the reason; it fails for one
# that is not listed, and for one that is listed and no longer there. Where the tests did not come to
# an end in time, they are tried again with much more of it: on a machine that is busy they may only
# have been slow.

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

MUTANTS_VERSION=27.1.0
EXPLAINED=$ROOT/docs/MUTANTS.md
RULES=$TARGET_BASE/mutants/rules
OUT=$TARGET_BASE/mutants
AGAIN=$OUT/again # those tried a second time
SECONDS_EACH=8
SECONDS_AGAIN=60
KILOBYTES_AGAIN=6000000

# Linking the whole extension takes half a minute, the rules by themselves a second or two: they
# become a library of their own, in the same files and rooms but without the server.

pure_files() { sed -n 's/^ *"\(src\/.*\.rs\)",$/\1/p' "$ROOT/tests/tidy/pure.rs"; }

# rooms_of DIRECTORY FILE: from a file that declares rooms, the declarations of those that are
# there in DIRECTORY, and what is passed on from them.
rooms_of() {
    local line name
    while IFS= read -r line; do
        name=${line##*mod }
        name=${name##*use }
        name=${name%%[:;]*}
        case $line in
        "mod "*';' | "pub mod "*';')
            if [ -e "$1/$name.rs" ] || [ -d "$1/$name" ]; then printf '%s\n' "$line"; fi
            ;;
        "pub use "*';')
            if [ -e "$1/$name.rs" ]; then printf '%s\n' "$line"; fi
            ;;
        esac
    done <"$2"
}

copy_rules() {
    local file room
    rm -rf "$RULES"
    for file in $(pure_files); do
        mkdir -p "$RULES/$(dirname "$file")"
        cp "$ROOT/$file" "$RULES/$file"
    done
    find "$RULES/src" -mindepth 1 -depth -type d | while IFS= read -r room; do
        rooms_of "$room" "$ROOT${room#"$RULES"}/mod.rs" >"$room/mod.rs"
    done
    {
        # what only the server's side of the rooms uses
        echo '#![allow(dead_code, unused_imports)]'
        rooms_of "$RULES/src" "$ROOT/src/lib.rs"
    } >"$RULES/src/lib.rs"
    {
        printf '[package]\nname = "rules"\nversion = "0.0.0"\nedition = "2024"\npublish = false\n\n[workspace]\n\n'
        sed -n '/^\[dependencies\]/,/^\[profile/{/^\[profile/!p}' "$ROOT/Cargo.toml" |
            grep -v '^\(pgrx\|postgres\) '
        # the properties try thousands of cases each, most of the time in these
        printf '[profile.dev]\ndebug = false\n[profile.dev.package."*"]\nopt-level = 2\n'
    } >"$RULES/Cargo.toml"
    cp "$ROOT/Cargo.lock" "$RULES/Cargo.lock"
    ln -s "$ROOT/sql" "$RULES/sql" # the tests of some rules look at what they are about
}

ensure_cargo_mutants() {
    if [ "$(cargo mutants --version 2>/dev/null)" != "cargo-mutants $MUTANTS_VERSION" ]; then
        say "Installing cargo-mutants $MUTANTS_VERSION (once, several minutes)"
        cargo install --quiet --locked cargo-mutants --version "$MUTANTS_VERSION"
    fi
}

# mutants OUTPUT SECONDS ARGUMENT...: tries them, each for so many seconds at least.
mutants() {
    local output=$1 seconds=$2
    shift 2
    # The same cases for every fault and in every run, and nothing learnt from one for the next.
    CARGO_TARGET_DIR=$OUT/build PROPTEST_RNG_SEED=1 PROPTEST_DISABLE_FAILURE_PERSISTENCE=1 \
        nice cargo mutants --dir "$RULES" --in-place --output "$output" --no-times --colors never \
        --minimum-test-timeout "$seconds" "$@"
}

# plant OUTPUT SECONDS ARGUMENT...: the same, where it is no failure that not all are noticed.
plant() {
    local result=0
    mutants "$@" -- --lib || result=$?
    # 2: some were missed; 3: some did not come to an end
    case $result in 0 | 2 | 3) ;; *) return $result ;; esac
}

# plant_again: once more with patience, what did not come to an end.
plant_again() {
    local file fault selected=() late=$OUT/mutants.out/timeout.txt
    rm -rf "$AGAIN"
    # faults of one kind, fields left out, are chosen by their file only
    while IFS= read -r file; do selected+=(--file "$file"); done < <(cut -d: -f1 "$late" | sort -u)
    # as regular expressions, each of which means only one of them
    while IFS= read -r fault; do selected+=(--re "^$fault\$"); done < <(
        sed 's/[][\.*+?(){}|^$]/\\&/g' "$late"
    )
    [ ${#selected[@]} != 0 ] || return 0
    say "Again, for what did not come to an end in time"
    mkdir -p "$AGAIN"
    # what has no end often has no bounds either
    (ulimit -v $KILOBYTES_AGAIN && plant "$AGAIN" $SECONDS_AGAIN "${selected[@]}")
}

# found OUTCOME: those for which it came to that in the end, once each.
found() {
    local outcome=$1
    {
        [ "$outcome" = timeout ] || cat "$OUT/mutants.out/$outcome.txt"
        [ ! -d "$AGAIN" ] || cat "$AGAIN/mutants.out/$outcome.txt"
    } | LC_ALL=C sort -u
}

counted() { found "$1" | wc -l; }

# without_places: where in its file a fault is changes with every edit; what it is does not.
without_places() { sed 's/^\([^:]*\):[0-9]*:[0-9]*: /\1: /' | LC_ALL=C sort; }

# explained FILE...: the faults listed for these files.
explained() {
    local file line
    # shellcheck disable=SC2016 # Markdown's quotes, not the shell's
    sed -n 's/^- `\(src\/.*\)`.*/\1/p' "$EXPLAINED" | while IFS= read -r line; do
        for file in "$@"; do
            case $line in "$file: "*) printf '%s\n' "$line" ;; esac
        done
    done | LC_ALL=C sort
}

# judge FILE...: what was found in these, beside what is listed.
judge() {
    local new gone
    new=$(LC_ALL=C comm -23 <(found missed | without_places) <(explained "$@"))
    gone=$(LC_ALL=C comm -13 <(found missed | without_places) <(explained "$@"))
    figure mutants "$(counted caught) noticed, $(counted timeout) never came to an end, $(counted missed) not noticed, $(counted unviable) do not compile"
    if [ -n "$new" ]; then
        say "No test notices these, and docs/MUTANTS.md does not say why"
        printf '%s\n' "$new"
    fi
    if [ -n "$gone" ]; then
        say "These are in docs/MUTANTS.md, and are noticed or no longer there"
        printf '%s\n' "$gone"
    fi
    [ -z "$new$gone" ]
}

main() {
    local file selected=() files
    ensure_cargo_mutants
    [ "${1:-}" != --tools ] || return 0
    copy_rules
    if [ "${1:-}" = --list ]; then
        mutants "$OUT" $SECONDS_EACH --list
        return
    fi
    for file in "$@"; do selected+=(--file "$file"); done
    files=("$@")
    [ $# != 0 ] || mapfile -t files < <(pure_files)
    plant "$OUT" $SECONDS_EACH "${selected[@]}"
    plant_again
    judge "${files[@]}"
}

main "$@"
