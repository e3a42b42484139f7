#!/usr/bin/env bash
# Draws throughput against owners and clients.
#
#   bench/chart.sh                bench/throughput.tsv as docs/throughput.svg
#   bench/chart.sh NAME.tsv       as NAME.svg

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"

table=${1:-$ROOT/bench/throughput.tsv}
if [ "$(realpath "$table")" = "$ROOT/bench/throughput.tsv" ]; then
    drawing=$ROOT/docs/throughput.svg
else
    drawing=${table%.tsv}.svg
fi
command -v python3 >/dev/null || ensure_packages python3
python3 "$ROOT/bench/chart.py" "$table" >"$drawing.new"
mv "$drawing.new" "$drawing"
note "$drawing"
