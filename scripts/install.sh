#!/usr/bin/env bash
# Installs an optimised build into the system's PostgreSQL, or packs one up.
#
#   scripts/install.sh           into the PostgreSQL of `pg_config`
#   scripts/install.sh build     only builds it
#   scripts/install.sh package   an archive to unpack at the root of another
#                                machine, in target/package
#   scripts/install.sh deb       a Debian package for Debian's PostgreSQL, there too
#
# PG_CONFIG names another pg_config than the first one in the path; DESTDIR a
# directory to install below, as if it were the root of the machine.

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

VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml" | head -n 1)
OUT=$TARGET_BASE/package

# stage DIR: the files as they lie below the root of a machine.
stage() {
    rm -rf "$1"
    mkdir -p "$1"
    step "Building for $version" cargo_for "$major" pgrx package --out-dir "$1" "${options[@]}"
    chmod -R u=rwX,go=rX "$1"
}

archive() {
    local name
    name=$EXTENSION-$VERSION-pg$major-$(uname -m)
    stage "$OUT/$name"
    tar -C "$OUT/$name" --owner=0 --group=0 --sort=name -czf "$OUT/$name.tar.gz" .
    rm -rf "${OUT:?}/$name"
    say "$OUT/$name.tar.gz"
    tar -tzf "$OUT/$name.tar.gz" | grep -v '/$'
    note "to install it: tar -C / --no-overwrite-dir -xzf $name.tar.gz"
}

# Puts the files in their places, each by renaming: a server that is running has the library mapped,
# and writing into that file would end it. Each can be read by everybody, whatever the umask is.
install_files() {
    local dir=$OUT/installation file as=
    [ -n "${DESTDIR:-}" ] || [ -w "$("$PG_CONFIG" --pkglibdir)" ] || as=as_root
    stage "$dir"
    while IFS= read -r -d '' file; do
        file=${DESTDIR:-}$file
        $as mkdir -p "${file%/*}"
        $as cp "$dir${file#"${DESTDIR:-}"}" "$file.new"
        $as chmod 644 "$file.new"
        $as mv -f "$file.new" "$file"
        note "$file"
    done < <(cd "$dir" && find . -type f -printf '/%P\0' | sort -z)
    rm -rf "$dir"
}

# Who answers for the Debian package.
MAINTAINER="${DEBFULLNAME:-The exa_billing developers} <${DEBEMAIL:-exa-billing@packages.invalid}>"

# What else belongs into a package: how to use it, and under which terms.
add_documents() { # DIR PACKAGE
    local doc=$1/usr/share/doc/$2
    mkdir -p "$doc/prometheus"
    cp "$ROOT"/README.md "$ROOT"/docs/*.md "$doc/"
    cp "$ROOT"/docs/prometheus/* "$doc/prometheus/"
    cp "$ROOT/LICENSE" "$doc/copyright"
    gzip -9n <"$ROOT/CHANGELOG.md" >"$doc/changelog.gz"
    gzip -9n <<CHANGELOG >"$doc/changelog.Debian.gz"
$2 ($VERSION-1) unstable; urgency=medium

  * What is new stands in changelog.gz.

 -- $MAINTAINER  $(date -R -u -d "@${SOURCE_DATE_EPOCH:-$(stat -c %Y "$ROOT/CHANGELOG.md")}")
CHANGELOG
    chmod -R u=rwX,go=rX "$1"
}

# The libraries that the build needs, as dependencies with their versions.
shared_libraries() { # FILE
    local source=$OUT/shlibs
    mkdir -p "$source/debian"
    printf 'Source: x\n\nPackage: x\nArchitecture: any\n' >"$source/debian/control"
    (cd "$source" && dpkg-shlibdeps -O -e "$1" 2>/dev/null) | sed -n 's/^shlibs:Depends=//p'
    rm -rf "$source"
}

# Named as Debian names its own packages of extensions.
deb() {
    local package=postgresql-$major-exa-billing architecture root file
    [ "$(dirname "$PG_CONFIG")" = "/usr/lib/postgresql/$major/bin" ] ||
        die "$PG_CONFIG is not Debian's; use: scripts/install.sh package"
    ensure_packages dpkg-dev
    architecture=$(dpkg --print-architecture)
    root=$OUT/$package
    file=$OUT/${package}_${VERSION}-1_$architecture.deb
    stage "$root"
    strip --strip-unneeded "$root/usr/lib/postgresql/$major/lib/$EXTENSION.so"
    add_documents "$root" "$package"
    mkdir "$root/DEBIAN"
    cat >"$root/DEBIAN/control" <<CONTROL
Package: $package
Version: $VERSION-1
Section: database
Priority: optional
Architecture: $architecture
Maintainer: $MAINTAINER
Installed-Size: $(du -k -s --apparent-size "$root/usr" | cut -f 1)
Depends: postgresql-$major, $(shared_libraries "$root/usr/lib/postgresql/$major/lib/$EXTENSION.so")
Description: exact books for usage-priced products, inside PostgreSQL
 Records usage atomically, gives every user a monthly free allowance, charges
 what is beyond it to credits, expires credits, rolls spend up by the hour, and
 tells owners of unusual spend.
CONTROL
    (cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
    rm -f "$file"
    dpkg-deb --root-owner-group --build "$root" "$file" >/dev/null
    rm -rf "$root"
    say "$file"
    dpkg-deb --contents "$file" | awk '$1 !~ /^d/ { print $6 }'
    note "to install it: apt-get install $file"
}

case ${1:-} in
build)
    stage "$OUT/installation"
    rm -rf "$OUT/installation"
    ;;
package) archive ;;
deb) deb ;;
'')
    install_files
    note "next: shared_preload_libraries = '$EXTENSION' in postgresql.conf, restart, CREATE EXTENSION $EXTENSION"
    ;;
*) die "usage: scripts/install.sh [build|package|deb]" ;;
esac
