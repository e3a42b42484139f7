#!/usr/bin/env bash
# Keeps what the tests of upgrades need of a version that is being released, and
# prints the lines that tests/tidy/released.rs gets for it.

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml" | head -n 1)
kept=tests/upgrade/released/$version
cd "$ROOT" || die "no $ROOT"
[ ! -e "$kept" ] || die "$kept is there already, and what was released never changes"

setup $DEFAULT_MAJOR
step "Building the extension" install_extension $DEFAULT_MAJOR
mkdir -p "$kept"
cp "$("$(pg_config_of $DEFAULT_MAJOR)" --sharedir)/extension/$EXTENSION--$version.sql" "$kept/install.sql"
for part in seeds guards views; do cp "sql/books/$part.sql" "$kept/$part.sql"; done
find sql/migrations -name '*.sql' | sed 's:.*/0*\([0-9]*\)_.*:\1:' | sort -n | tail -n 1 >"$kept/storage_version"

say "For tests/tidy/released.rs, where it does not have them yet"
find sql "$kept" \( -path "sql/migrations/*.sql" -o -path "sql/$EXTENSION--*.sql" -o -path "$kept/*.sql" \) | sort | xargs sha256sum |
    sed 's/^\([0-9a-f]*\)  \(.*\)$/    ("\2", "\1"),/'
