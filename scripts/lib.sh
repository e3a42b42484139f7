# Functions shared by the scripts; source it, do not run it.
#
# Nothing here installs into the system's PostgreSQL: tests and demo use a copy
# of it under $WORK, so that they need no root rights for it and that two
# checkouts do not overwrite each other's extension.

# shellcheck shell=bash
set -euo pipefail
# a server that inherited this would put a backtrace into the DETAIL of its errors
unset RUST_BACKTRACE

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
EXTENSION=exa_billing
DEFAULT_MAJOR=15

say() { printf '\n==> %s\n' "$*"; }
note() { printf '    %s\n' "$*"; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# figure PART WHAT: notes it for the summary that scripts/proof.sh shows at its end.
figure() {
    note "$2"
    [ -z "${EXA_BILLING_PROOF_FIGURES:-}" ] || printf '%s\t%s\n' "$1" "$2" >>"$EXA_BILLING_PROOF_FIGURES"
}

# step TITLE COMMAND...: runs it and tells how long it took.
step() {
    local title=$1 began=$SECONDS status
    shift
    say "$title"
    "$@"
    status=$? # not 0 only where a condition has switched errexit off
    note "($title: $((SECONDS - began)) s)"
    return $status
}

am_root() { [ "$(id -u)" = 0 ]; }

as_root() {
    if am_root; then "$@"; else sudo -- "$@"; fi
}

# The caller's own connection settings must not lead a test to another server.
forget_libpq_settings() {
    local name
    for name in $(compgen -e PG); do
        case $name in PGRX_* | PG_CONFIG) ;; *) unset "$name" ;; esac
    done
}
forget_libpq_settings

# Unix socket paths end at 107 bytes, and user postgres must be able to enter:
# therefore a short directory under /tmp and not one inside the checkout.
WORK=${EXA_BILLING_WORK:-/tmp/$EXTENSION-$(id -u)-$(printf %s "$ROOT" | sha256sum | cut -c1-8)}

make_work() {
    mkdir -p "$WORK"
    [ -O "$WORK" ] || die "$WORK belongs to somebody else; set EXA_BILLING_WORK to a directory of your own"
    chmod 755 "$WORK"
}

# PostgreSQL refuses to run as root. The directory is changed because the
# programs complain when they cannot read the one they were started in.
as_postgres() {
    if am_root; then
        (cd "$WORK" && runuser -u postgres -- "$@")
    else
        (cd "$WORK" && "$@")
    fi
}

give_to_postgres() {
    if am_root; then chown -R postgres: "$@"; fi
}

# ---------------------------------------------------------------- packages

APT_UPDATED=no

# ensure_packages NAME...: installs those that are missing.
ensure_packages() {
    local name missing=()
    for name in "$@"; do
        # shellcheck disable=SC2016 # ${Status} is dpkg's
        dpkg-query -W -f '${Status}\n' "$name" 2>/dev/null | grep -q '^install ok installed' ||
            missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null ||
        die "these packages are needed and there is no apt-get to install them: ${missing[*]}"
    am_root || command -v sudo >/dev/null ||
        die "these packages are needed, and installing them takes root or sudo: ${missing[*]}"
    say "Installing packages: ${missing[*]}"
    # Debian would otherwise make and start a cluster that nobody asked for.
    if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
        as_root mkdir -p /etc/postgresql-common
        echo 'create_main_cluster = false' |
            as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
    fi
    if [ $APT_UPDATED = no ]; then
        as_root apt-get update -qq
        APT_UPDATED=yes
    fi
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

ensure_build_packages() {
    ensure_packages build-essential pkg-config clang libclang-dev \
        "postgresql-$DEFAULT_MAJOR" "postgresql-server-dev-$DEFAULT_MAJOR"
}

# isolation_tester: the directory of PostgreSQL's isolation tester, which comes with the packages above.
# It is a client and serves for servers of every release.
isolation_tester() {
    local makefile
    makefile=$("$(system_pg_config $DEFAULT_MAJOR)" --pgxs)
    echo "${makefile%/makefiles/*}/test/isolation"
}

# alone COMMAND...: two runs of one checkout would get in each other's way where they fill $WORK.
alone() {
    local result=0
    make_work
    exec 7>"$WORK/fill.lock"
    flock 7
    "$@" 7>&- || result=$? # which switches errexit off in it
    exec 7>&-
    return $result
}

# unpack_package NAME: its files under $WORK/packages/NAME, without installing
# it: no service of it is started on this machine.
unpack_package() {
    local name=$1 dir=$WORK/packages/$1
    [ ! -e "$dir/done" ] || return 0
    command -v apt-get >/dev/null || die "there is no apt-get to fetch the package $name with"
    say "Fetching package $name"
    rm -rf "$dir"
    mkdir -p "$dir/files" || return
    if ! download_package "$name" "$dir" 2>/dev/null; then
        as_root apt-get update -qq
        download_package "$name" "$dir" || die "package $name cannot be fetched"
    fi
    dpkg-deb -x "$dir/$name"_*.deb "$dir/files" || return
    rm "$dir/$name"_*.deb
    chmod -R a+rX "$WORK/packages" || return
    touch "$dir/done"
}

# apt would otherwise fetch as a user of its own, who may not write there.
download_package() { # NAME DIR
    (cd "$2" && apt-get download -qq -o APT::Sandbox::User=root "$1")
}

EXPORTER=

# provide_exporter: sets $EXPORTER to Debian's postgres_exporter.
provide_exporter() {
    alone unpack_package prometheus-postgres-exporter
    # shellcheck disable=SC2034 # used by scripts/test.sh
    EXPORTER=$WORK/packages/prometheus-postgres-exporter/files/usr/bin/prometheus-postgres-exporter
}

# provide_pg_cron: Debian's pg_cron in the private installation of the default
# major, the only one that it has it for.
provide_pg_cron() { alone install_pg_cron; }

install_pg_cron() {
    local major=$DEFAULT_MAJOR files=$WORK/packages/postgresql-$DEFAULT_MAJOR-cron/files library
    unpack_package "postgresql-$major-cron" || return
    library=$("$(pg_config_of "$major")" --pkglibdir)/pg_cron.so
    keep_mapped "$library" || return
    cp "$files/usr/lib/postgresql/$major/lib/pg_cron.so" "$library" || return
    cp "$files/usr/share/postgresql/$major/extension"/pg_cron* \
        "$("$(pg_config_of "$major")" --sharedir)/extension"
}

# ---------------------------------------------------------------- pgrx

pgrx_version() {
    sed -n 's/^pgrx = .*"=\([0-9.]*\)".*/\1/p' "$ROOT/Cargo.toml"
}

# cargo-pgrx must have the very version of the crate.
ensure_cargo_pgrx() {
    local wanted
    wanted=$(pgrx_version)
    [ -n "$wanted" ] || die "Cargo.toml does not pin pgrx"
    if [ "$(cargo pgrx --version 2>/dev/null)" != "cargo-pgrx $wanted" ]; then
        say "Installing cargo-pgrx $wanted (once, several minutes)"
        cargo install --quiet --locked cargo-pgrx --version "$wanted"
    fi
}

system_pg_config() { echo "/usr/lib/postgresql/$1/bin/pg_config"; }

usable_pg_config() { # PATH MAJOR
    [ -x "$1" ] && [[ $("$1" --version) == "PostgreSQL $2."* ]] &&
        [ -e "$("$1" --includedir-server)/postgres.h" ]
}

# pgrx looks up the headers for plain cargo commands in its own config.toml.
# Touching that file rebuilds everything, so it is left alone when it is good.
ensure_pgrx_init() {
    local config=${PGRX_HOME:-$HOME/.pgrx}/config.toml known=
    [ ! -e "$config" ] || known=$(sed -n "s/^pg$DEFAULT_MAJOR *= *\"\(.*\)\"/\1/p" "$config")
    if ! usable_pg_config "$known" $DEFAULT_MAJOR; then
        ensure_cargo_pgrx
        say "Telling pgrx where PostgreSQL $DEFAULT_MAJOR is"
        cargo pgrx init --no-run "--pg$DEFAULT_MAJOR" "$(system_pg_config $DEFAULT_MAJOR)"
    fi
}

TARGET_BASE=${CARGO_TARGET_DIR:-$ROOT/target}

# cargo_for MAJOR COMMAND...: runs cargo with the bindings of that major. Each
# major has its own target directory, because bindings of different servers in
# one directory replace each other at every change.
cargo_for() {
    local major=$1
    shift
    if [ "$major" = $DEFAULT_MAJOR ]; then
        (cd "$ROOT" && CARGO_TARGET_DIR=$TARGET_BASE cargo "$@")
    else
        (cd "$ROOT" && CARGO_TARGET_DIR=$TARGET_BASE/pg$major \
            PGRX_PG_CONFIG_PATH=$(bindings_pg_config "$major") cargo "$@")
    fi
}

# scripts/install.sh builds for the system's installations instead
BINDINGS_PG_CONFIG=
bindings_pg_config() { echo "${BINDINGS_PG_CONFIG:-$(pg_config_of "$1")}"; }

# Bindings do not notice by themselves that a minor release brought new headers.
refresh_bindings() { # MAJOR PG_CONFIG
    local dir=$TARGET_BASE version
    [ "$1" = $DEFAULT_MAJOR ] || dir=$TARGET_BASE/pg$1
    version=$("$2" --version)
    mkdir -p "$dir"
    if [ -e "$dir/.postgresql-version" ] && [ "$(cat "$dir/.postgresql-version")" != "$version" ]; then
        note "$version is new here: the bindings are made again"
        cargo_for "$1" clean --quiet -p pgrx-pg-sys
    fi
    echo "$version" >"$dir/.postgresql-version"
}

# shellcheck source=scripts/installations.sh
. "$ROOT/scripts/installations.sh"

# ---------------------------------------------------------------- servers

PORT=5432 # each server has its own socket directory, so they all can have it

# template_of MAJOR: an initialised data directory that servers are copied from.
template_of() {
    local major=$1 template=$WORK/template$1 new=$WORK/template$1.$$
    if [ ! -d "$template" ]; then
        mkdir "$new"
        give_to_postgres "$new"
        as_postgres "$(bin_of "$major")/initdb" -D "$new" -A trust -U postgres \
            --locale=C.UTF-8 -E UTF8 --no-sync >"$new.log" 2>&1 || {
            cat "$new.log" >&2
            return 1
        }
        echo "include_if_exists = 'server.conf'" >>"$new/postgresql.conf"
        rm -f "$new.log"
        # -T: when another run was faster, this one fails instead of moving into it
        mv -T "$new" "$template" 2>/dev/null || rm -rf "$new"
    fi
    echo "$template"
}

# server_start DIR MAJOR [CONFIGURATION LINE...]: a fresh throwaway server with
# its data in DIR/data, its socket in DIR and its log in DIR/server.log.
server_start() {
    local dir=$1 major=$2 template
    shift 2
    template=$(template_of "$major")
    mkdir -p "$dir"
    cp -a "$template" "$dir/data"
    {
        cat <<CONF
listen_addresses = ''
port = $PORT
unix_socket_directories = '$dir'
unix_socket_permissions = 0700
fsync = off
max_connections = 200
max_prepared_transactions = 50
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %q%u@%d '
shared_preload_libraries = '$EXTENSION'
$EXTENSION.databases = ''
CONF
        if [ $# -gt 0 ]; then printf '%s\n' "$@"; fi
    } >"$dir/data/server.conf"
    give_to_postgres "$dir"
    server_resume "$dir" "$major"
}

# server_resume DIR MAJOR: starts a server that was stopped.
server_resume() {
    as_postgres "$(bin_of "$2")/pg_ctl" start -w -t 120 -s -D "$1/data" -l "$1/server.log" </dev/null || {
        tail -n 20 "$1/server.log" >&2
        die "the server in $1 does not start"
    }
}

server_stop() { # DIR [MODE]
    local dir=$1 major
    [ -e "$dir/data/postmaster.pid" ] || return 0
    major=$(cat "$dir/data/PG_VERSION")
    as_postgres "$(bin_of "$major")/pg_ctl" stop -s -w -D "$dir/data" -m "${2:-fast}" || true
}

# stop_and_remove DIR: also the servers that tests started below DIR and did not
# come to stop themselves, and the small disks of tests that were killed.
stop_and_remove() {
    local data disk
    for data in "$1"/data "$1"/*/data; do
        [ ! -d "$data" ] || server_stop "${data%/data}" immediate
    done
    if [ -r /proc/mounts ]; then
        while read -r _ disk _; do
            case $disk in "$1"/*) umount --lazy "$disk" || true ;; esac
        done </proc/mounts
    fi
    rm -rf "$1"
}

psql_in() { # DIR MAJOR ARGUMENT...
    local dir=$1 major=$2
    shift 2
    "$(bin_of "$major")/psql" -X -h "$dir" -p "$PORT" -U postgres "$@"
}
