#!/usr/bin/env bash
# Installs an optimised build into the system's PostgreSQL, or packs one up.
#
#   scripts/install.sh           into the PostgreSQL of `pg_config`
#   scripts/install.sh package   an archive to unpack at the root of another
#                                machine, in target/package
#
# PG_CONFIG names another pg_config than the first one in the path.

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Without any PostgreSQL there is nothing to ask, so the default one comes first.
if [ -z "${PG_CONFIG:-}" ] && ! command -v pg_config >/dev/null; then ensure_build_packages; fi
PG_CONFIG=${PG_CONFIG:-$(command -v pg_config)}
# /usr/bin/pg_config is a dispatcher on Debian; the real one names one major
PG_CONFIG=$("$PG_CONFIG" --bindir)/pg_config
# shellcheck disable=SC2034 # for cargo_for
BINDINGS_PG_CONFIG=$PG_CONFIG
version=$("$PG_CONFIG" --version)
major=${version#PostgreSQL }
major=${major%%[!0-9]*}

ensure_packages build-essential pkg-config clang libclang-dev
usable_pg_config "$PG_CONFIG" "$major" || {
    # a pg_config from libpq-dev alone comes without the server's headers
    ensure_packages "postgresql-server-dev-$major"
    usable_pg_config "$PG_CONFIG" "$major" ||
        die "$PG_CONFIG ($version) has no server headers"
}
ensure_cargo_pgrx
if [ "$major" = $DEFAULT_MAJOR ]; then ensure_pgrx_init; fi
refresh_bindings "$major" "$PG_CONFIG"

options=(--pg-config "$PG_CONFIG" --no-default-features --features "pg$major")

if [ "${1:-}" = package ]; then
    name=$EXTENSION-$(sed -n 's/^version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml" | head -n 1)-pg$major-$(uname -m)
    out=$TARGET_BASE/package
    rm -rf "${out:?}/$name"
    mkdir -p "$out"
    step "Building for $version" cargo_for "$major" pgrx package --out-dir "$out/$name" "${options[@]}"
    tar -C "$out/$name" --owner=0 --group=0 -czf "$out/$name.tar.gz" .
    rm -rf "${out:?}/$name"
    say "$out/$name.tar.gz"
    tar -tzf "$out/$name.tar.gz" | grep -v '/$'
    note "to install it: tar -C / --no-overwrite-dir -xzf $name.tar.gz"
else
    if ! [ -w "$("$PG_CONFIG" --pkglibdir)" ]; then options+=(--sudo); fi
    step "Building for $version and installing" cargo_for "$major" pgrx install --release "${options[@]}"
    note "next: shared_preload_libraries = '$EXTENSION' in postgresql.conf, restart, CREATE EXTENSION $EXTENSION"
fi
