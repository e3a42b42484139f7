#!/usr/bin/env bash
# Plants faults in the pure rules, one at a time, and looks whether their tests notice.
#
#   scripts/mutants.sh                   all of them
#   scripts/mutants.sh --list            what would be planted
#   scripts/mutants.sh src/time.rs ...   only in these files
#
# docs/MUTANTS.md lists the faults that no test notices, each with the reason; it fails for one
# that is not listed, and for one that is listed and no longer there.

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

MUTANTS_VERSION=27.1.0
EXPLAINED=$ROOT/docs/MUTANTS.md
RULES=$TARGET_BASE/mutants/rules
OUT=$TARGET_BASE/mutants

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

mutants() { # ARGUMENT...
    # The same cases for every fault and in every run, and nothing learnt from one for the next.
    CARGO_TARGET_DIR=$OUT/build PROPTEST_RNG_SEED=1 PROPTEST_DISABLE_FAILURE_PERSISTENCE=1 \
        nice cargo mutants --dir "$RULES" --in-place --output "$OUT" --no-times --colors never \
        --minimum-test-timeout 8 "$@"
}

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

main() {
    local result=0 file selected=() files new gone
    copy_rules
    ensure_cargo_mutants
    if [ "${1:-}" = --list ]; then
        mutants --list
        return
    fi
    for file in "$@"; do selected+=(--file "$file"); done
    files=("$@")
    [ $# != 0 ] || mapfile -t files < <(pure_files)
    # 2: some were missed; 3: some did not come to an end, which is noticing too
    mutants "${selected[@]}" -- --lib || result=$?
    case $result in 0 | 2 | 3) ;; *) return $result ;; esac

    new=$(LC_ALL=C comm -23 <(without_places <"$OUT/mutants.out/missed.txt") <(explained "${files[@]}"))
    gone=$(LC_ALL=C comm -13 <(without_places <"$OUT/mutants.out/missed.txt") <(explained "${files[@]}"))
    note "$(counted caught) noticed, $(counted timeout) never came to an end, $(counted missed) not noticed," \
        "$(counted unviable) do not compile"
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

counted() { wc -l <"$OUT/mutants.out/$1.txt"; }


main "$@"
