#!/usr/bin/env bash
# The demonstration: a private server with the extension, and a story in SQL.
#
#   scripts/demo.sh         sets everything up, runs it and leaves the server up
#   scripts/demo.sh stop    stops the server and throws its data away

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

DIR=$WORK/demo

if [ "${1:-}" = stop ]; then
    if [ -d "$DIR" ]; then
        stop_and_remove "$DIR"
        say "The demonstration's server is stopped and its data are gone."
    else
        say "There is no demonstration's server."
    fi
    exit
fi

start_fresh() {
    stop_and_remove "$DIR"
    server_start "$DIR" $DEFAULT_MAJOR
    psql_in "$DIR" $DEFAULT_MAJOR -q -c 'create database demo'
    # only now, so that no background worker looks for a database that is not there
    server_stop "$DIR"
    echo "$EXTENSION.databases = 'demo'" >>"$DIR/data/server.conf"
    server_resume "$DIR" $DEFAULT_MAJOR
}

tell_story() {
    # from its own directory, so that it can include files beside it
    (cd "$ROOT/demo" && psql_in "$DIR" $DEFAULT_MAJOR -v ON_ERROR_STOP=1 -d demo -f story.sql)
}

setup $DEFAULT_MAJOR
step "Building the extension and installing it into a private PostgreSQL" install_extension $DEFAULT_MAJOR
step "Starting a private server" start_fresh
say "demo/story.sql"
tell_story
say "The server is still up. Look around in it with"
note "$(bin_of $DEFAULT_MAJOR)/psql -h $DIR -p $PORT -U postgres demo"
say "and stop it with"
note "make demo-stop"
