#!/usr/bin/env bash
# What is shipped installs and works: builds the archive and the Debian package,
# installs each, and the checkout itself, into a clean PostgreSQL of its own, and
# lives through the first day of a new user there. Nothing is installed into the
# system.

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

MAJOR=$DEFAULT_MAJOR
VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml" | head -n 1)
PACKAGE=postgresql-$MAJOR-exa-billing
OUT=$TARGET_BASE/package
RUN=

clean_up() {
    [ -z "$RUN" ] || {
        for name in install archive deb; do server_stop "$RUN/$name" immediate; done
        as_root rm -rf "$RUN" # dpkg's files are root's
    }
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# The server's programs are those of the installation under test.
INSTALLATION=
bin_of() { echo "${INSTALLATION:-$WORK/pg$1}/usr/lib/postgresql/$1/bin"; }

files_of_extension() {
    find "$INSTALLATION/usr" -path '*doc*' -prune -o -name "$EXTENSION*" -print | sort
}

# A PostgreSQL that has never seen the extension.
clean_installation() { # NAME
    INSTALLATION=$RUN/$1/root
    mkdir -p "$RUN/$1"
    cp -a "$WORK/pg$MAJOR" "$INSTALLATION"
    rm -f "$INSTALLATION/usr/lib/postgresql/$MAJOR/lib/$EXTENSION".so \
        "$INSTALLATION/usr/share/postgresql/$MAJOR/extension/$EXTENSION"[.-]*
    [ -z "$(files_of_extension)" ] || die "$INSTALLATION is not clean"
}

live_through_first_day() { # NAME
    local version
    server_start "$RUN/$1" "$MAJOR" "$EXTENSION.databases = 'app'"
    psql_in "$RUN/$1" "$MAJOR" -q -c 'CREATE DATABASE app'
    version=$(psql_in "$RUN/$1" "$MAJOR" -d app -qAt -f "$ROOT/tests/package/first_day.sql" | tail -n 1)
    server_stop "$RUN/$1"
    [ "$version" = "$VERSION" ] || die "$1: version $version was installed, not $VERSION"
}

# Under an umask that lets nobody else read, and in the place of a library that a
# server may have mapped: writing into that very file would end it.
test_install() {
    local library inode
    clean_installation install
    library=$INSTALLATION/usr/lib/postgresql/$MAJOR/lib/$EXTENSION.so
    echo older >"$library"
    inode=$(stat -c %i "$library")
    (umask 077 && DESTDIR=$INSTALLATION "$ROOT/scripts/install.sh")
    [ "$(stat -c %i "$library")" != "$inode" ] || die "$library was written into"
    [ -z "$(find "$INSTALLATION/usr" -name "$EXTENSION*" ! -perm -004)" ] || die "not everybody can read what was installed"
    live_through_first_day install
}

test_archive() {
    clean_installation archive
    tar -C "$INSTALLATION" --no-overwrite-dir -xzf "$OUT/$EXTENSION-$VERSION-pg$MAJOR-$(uname -m).tar.gz"
    live_through_first_day archive
}

# dpkg with a root of its own, which believes that what is installed here is
# installed there, so that it checks the package's dependencies.
dpkg_there() { as_root dpkg --root="$INSTALLATION" "$@"; }

test_deb() {
    local admin
    clean_installation deb
    admin=$INSTALLATION/var/lib/dpkg
    mkdir -p "$admin"/{info,updates,triggers}
    cp /var/lib/dpkg/status "$admin/status"
    cp /var/lib/dpkg/info/*.list "$admin/info/"
    dpkg_there --install "$OUT/${PACKAGE}_$VERSION-1_$(dpkg --print-architecture).deb" >/dev/null
    dpkg_there --verify "$PACKAGE"
    [ -s "$INSTALLATION/usr/share/doc/$PACKAGE/copyright" ] || die "the package has no copyright"
    live_through_first_day deb
    dpkg_there --purge "$PACKAGE" >/dev/null
    [ -z "$(files_of_extension)" ] || die "the package leaves behind: $(files_of_extension)"
}

ensure_build_packages
ensure_cargo_pgrx
ensure_pgrx_init
provide $MAJOR || die "PostgreSQL $MAJOR: not to be had here: $WHY_NOT"
PG_CONFIG=$(system_pg_config $MAJOR)
export PG_CONFIG
"$ROOT/scripts/install.sh" package
"$ROOT/scripts/install.sh" deb
RUN=$WORK/package-$$
mkdir "$RUN"
chmod 755 "$RUN"
step "The checkout in a clean PostgreSQL" test_install
step "The archive in a clean PostgreSQL" test_archive
step "The Debian package in a clean PostgreSQL" test_deb
say "The packages work"
