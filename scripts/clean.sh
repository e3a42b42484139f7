#!/usr/bin/env bash
# Stops this checkout's private servers and removes everything that was made.

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

for dir in "$WORK"/demo "$WORK"/bench "$WORK"/instructions "$WORK"/dev* "$WORK"/t[0-9]*-*; do
    [ ! -d "$dir" ] || stop_and_remove "$dir"
done
# by name, because EXA_BILLING_WORK may hold other things too
rm -rf "$WORK"/{pg,template,build}[0-9]* "$WORK"/wheel "$WORK"/packages "$WORK"/failed-*.log "$WORK"/install.lock \
    "$WORK"/bench-* "$WORK"/callgrind
rmdir "$WORK" 2>/dev/null || true
(cd "$ROOT" && cargo clean)
