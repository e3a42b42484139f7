#!/usr/bin/env bash
# A server of one's own to explore in, with the extension installed. Its data
# stay until `remove`.
#
#   scripts/server.sh 15 start           builds, installs, starts (or restarts)
#   scripts/server.sh 15 psql [ARG...]   psql in its database "dev"
#   scripts/server.sh 15 stop
#   scripts/server.sh 15 remove          stops it and throws its data away

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() { die "usage: scripts/server.sh MAJOR start|psql|stop|remove"; }

[ $# -ge 2 ] || usage
major=$1 action=$2
shift 2
DIR=$WORK/dev$major

case $action in
start)
    setup "$major"
    step "Building the extension and installing it" install_extension "$major"
    if [ -d "$DIR/data" ]; then
        # shared libraries that are preloaded are read at the start only
        server_stop "$DIR"
        server_resume "$DIR" "$major"
    else
        server_start "$DIR" "$major" "$EXTENSION.databases = 'dev'"
    fi
    if [ -z "$(psql_in "$DIR" "$major" -qAt -c "select 1 from pg_database where datname = 'dev'")" ]; then
        psql_in "$DIR" "$major" -q -c 'create database dev'
    fi
    psql_in "$DIR" "$major" -q -d dev -c "create extension if not exists $EXTENSION"
    note "running: scripts/server.sh $major psql"
    note "its log: $DIR/server.log"
    ;;
psql) psql_in "$DIR" "$major" -d dev "$@" ;;
stop) server_stop "$DIR" ;;
remove) stop_and_remove "$DIR" ;;
*) usage ;;
esac
