#!/usr/bin/env bash
# Everything that can be checked without a server.

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

tests=(--lib)
[ ! -e "$ROOT/tests/tidy.rs" ] || tests+=(--test tidy)

ensure_build_packages
ensure_pgrx_init
refresh_bindings $DEFAULT_MAJOR "$(system_pg_config $DEFAULT_MAJOR)"
step "Formatting" cargo_for $DEFAULT_MAJOR fmt --check
step "Lints" cargo_for $DEFAULT_MAJOR clippy --all-targets -- -D warnings
step "Tests that need no server" pure_tests "${tests[@]}"
