#!/bin/sh
# Install assistantd for all users of a Linux machine, or upgrade it: sudo ./install.sh [OPTIONS] [WHEEL]
#
#   WHEEL              assistantd-….whl; by default the one beside this file, or else the newest
#                      that pip finds
#   --extras A,B       also voice, piper, network, web (default: network,web)
#   --from FOLDER      take all packages from this folder, and use no network (pip download made it)
#   --prefix FOLDER    where it is to be (default: /opt/assistantd)
#   --no-service       install the program, and start no service
#   --uninstall        remove it; conversations, models and settings stay
#   --purge            with --uninstall: delete these, too, once you have said yes
#   --yes              ask nothing
#
# Each version is in a virtual environment of its own, PREFIX/versions/VERSION-N; PREFIX/current
# points at the one in use. A new one is tried before `current` changes, and if the service does not
# start with it, `current` goes back: what worked goes on working. Broken off, it can be run again.
set -eu
umask 022 # whoever runs this: others are to use it

prefix=/opt/assistantd extras=network,web from='' service=yes mode=install yes='' purge='' wheel=''
bin=/usr/local/bin
data="/var/lib/assistantd /var/lib/assistantd-gateway /var/lib/assistantd-voice"
disk_mb=900 # what two versions and the unpacking take
here=$(cd "$(dirname "$0")" && pwd)

say() { echo "install.sh: $*" >&2; }
die() {
    say "$*"
    exit 1
}

while [ $# -gt 0 ]; do
    case $1 in
    --extras) extras=${2?--extras needs a value} && shift ;;
    --from) from=${2?--from needs a value} && shift ;;
    --prefix) prefix=${2?--prefix needs a value} && shift ;;
    --no-service) service= ;;
    --uninstall) mode=uninstall ;;
    --purge) purge=yes ;;
    --yes) yes=yes ;;
    -h | --help)
        sed -n '2,/^set -eu/s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    -*) die "there is no option $1; see $0 --help" ;;
    *) wheel=$1 ;;
    esac
    shift
done
case $prefix in
/?*) ;;
*) die "--prefix needs an absolute path" ;;
esac

has_systemd() { [ -d /run/systemd/system ]; }

uninstall() {
    if [ -x "$prefix/current/bin/assistant" ] && has_systemd; then
        "$prefix/current/bin/assistant" service uninstall --system
    fi
    for program in assistant assistantd; do
        case $(readlink "$bin/$program" || true) in
        "$prefix/"*) rm "$bin/$program" ;;
        esac
    done
    rm -rf "$prefix/versions" "$prefix/current" "$prefix/.lock" /var/cache/assistantd
    [ ! -d "$prefix" ] || rmdir --ignore-fail-on-non-empty "$prefix"
    left=
    for folder in $data /etc/assistantd; do
        [ ! -e "$folder" ] || left="$left $folder"
    done
    if [ -z "$left" ]; then
        say "removed"
    elif [ -n "$purge" ] && confirm "delete all conversations, models and settings ($left )?"; then
        # shellcheck disable=SC2086
        rm -rf $left
        say "removed, and all data with it"
        left=
    else
        say "removed; your data are kept in$left"
    fi
    # with nothing left that belongs to them
    for user in assistantd-kernels ${left:-assistantd}; do
        case $user in
        /*) ;;
        *) if id "$user" >/dev/null 2>&1; then userdel "$user"; fi ;;
        esac
    done
}

confirm() {
    [ -z "$yes" ] || return 0
    [ -t 0 ] || die "$1 Nobody is there to say yes: give --yes if you mean it"
    printf '%s [y/N] ' "$1" >&2
    read -r answer
    case $answer in
    y | Y | yes) return 0 ;;
    *) return 1 ;;
    esac
}

find_python() { # the latest that is new enough; sets $python
    for python in python3 python3.14 python3.13 python3.12 python3.11; do
        if command -v $python >/dev/null &&
            $python -c 'import sys; sys.exit(not sys.version_info >= (3, 11))'; then
            return 0
        fi
    done
    die "Python 3.11 or later is needed; this machine has $(python3 --version 2>/dev/null || echo none)." \
        "On Raspberry Pi OS, Debian 12 (bookworm) or later brings it"
}

check_machine() {
    machine=$(uname -m) bits=$(getconf LONG_BIT)
    case $machine-$bits in
    x86_64-64 | aarch64-64) ;;
    armv6l-* | armv7l-* | armv8l-* | aarch64-32)
        die "this is a 32-bit system ($machine, $bits bits): numba, numpy and LLVM publish nothing" \
            "for it, and models would not fit in its address space. A Raspberry Pi 3 or later" \
            "runs the 64-bit Raspberry Pi OS"
        ;;
    *) die "nothing is published for $machine; x86_64 and aarch64 are supported" ;;
    esac
    find_python
    case $($python -c 'import struct; print(8 * struct.calcsize("P"))') in
    64) ;;
    *) die "$python is a 32-bit program on a 64-bit system; install the 64-bit system" ;;
    esac
    $python -c 'import venv, ensurepip' 2>/dev/null ||
        die "$python cannot make virtual environments. On Debian, Ubuntu and Raspberry Pi OS:" \
            "sudo apt install python3-venv"
    folder=$prefix
    while [ ! -d "$folder" ]; do folder=$(dirname "$folder"); done
    free_mb=$(df -Pm "$folder" | awk 'NR == 2 { print $4 }')
    [ "$free_mb" -ge $disk_mb ] ||
        die "$folder has $free_mb MB left; $disk_mb MB are needed to install. Make room, or give" \
            "another place with --prefix"
}

# Whether a version can read the databases that are there: Python, for its own environment
readable='
import sqlite3, sys
from pathlib import Path
from assistantd.network.devices import FILE_NAME, MIGRATIONS as devices
from assistantd.sessions import MIGRATIONS as sessions
for name, migrations in (("sessions.db", sessions), (f"network/{FILE_NAME}", devices)):
    path = Path("/var/lib/assistantd", name)
    if path.exists():
        database = sqlite3.connect(path.as_uri() + "?mode=ro", uri=True)
        (schema,) = database.execute("PRAGMA user_version").fetchone()
        if schema > len(migrations):
            sys.exit(
                f"{path} was written by a newer version (schema {schema}, this one knows "
                f"{len(migrations)}): install that one, or move the file away to begin anew"
            )
'

install() {
    check_machine
    if [ -z "$wheel" ]; then
        # shellcheck disable=SC2012
        wheel=$(ls -t "$here"/assistantd-*.whl "$here"/../../dist/assistantd-*.whl 2>/dev/null | head -n 1)
    fi
    case $wheel in
    '') requirement=assistantd ;;
    *.whl)
        [ -f "$wheel" ] || die "there is no file $wheel"
        requirement=$(cd "$(dirname "$wheel")" && pwd)/$(basename "$wheel")
        ;;
    *) die "$wheel is no wheel (assistantd-….whl)" ;;
    esac

    mkdir -p "$prefix/versions"
    exec 9>"$prefix/.lock"
    if command -v flock >/dev/null; then
        flock -n 9 || die "another installation is under way"
    fi
    # what was broken off
    for folder in "$prefix/versions"/*; do
        if [ -d "$folder" ] && [ ! -e "$folder/complete" ]; then rm -rf "$folder"; fi
    done
    old=$(readlink "$prefix/current" || true)
    number=1
    while [ -e "$prefix/versions/$number" ]; do number=$((number + 1)); done
    new=versions/$number
    trap 'say "broken off; what was installed before is as it was. Run it again"; exit 1' INT TERM HUP

    say "installing into $prefix/$new"
    $python -m venv "$prefix/$new"
    set -- --quiet --disable-pip-version-check --no-input
    [ -z "$from" ] || set -- "$@" --no-index --find-links "$from"
    if ! "$prefix/$new/bin/python" -m pip install "$@" "$requirement${extras:+[$extras]}"; then
        rm -rf "${prefix:?}/$new"
        die "the packages could not be installed; what was installed before is as it was"
    fi
    if ! version=$("$prefix/$new/bin/python" -P -c 'from assistantd.release import VERSION; print(VERSION)') ||
        ! "$prefix/$new/bin/python" -P -c "$readable" ||
        ! "$prefix/$new/bin/assistantd" --check-config >/dev/null; then
        rm -rf "${prefix:?}/$new"
        die "the new version does not run here, as told above; nothing was changed"
    fi
    : >"$prefix/$new/complete"
    sync -f "$prefix/$new/complete"

    if [ -n "$old" ] && [ -n "$service" ] && has_systemd; then
        systemctl stop assistantd.socket assistantd.service || true # if it was installed at all
        keep_databases
    fi
    switch "$new"
    mkdir -p "$bin"
    for program in assistant assistantd; do
        ln -sfn "$prefix/current/bin/$program" "$bin/$program"
    done
    if [ -n "$service" ] && has_systemd; then
        if ! start_service; then
            if [ -n "$old" ]; then
                say "the service does not start with $version; going back to the version before"
                switch "$old"
                bring_back_databases
                start_service || say "that one does not start, either: assistant service logs"
                rm -rf "${prefix:?}/$new"
                exit 1
            fi
            die "the service does not start: assistant service logs --system"
        fi
    elif [ -n "$service" ]; then
        say "systemd does not run here; start $bin/assistantd yourself"
    fi
    trap - INT TERM HUP
    rm -rf "$prefix/$new/databases"
    for folder in "$prefix/versions"/*; do
        [ "$folder" = "$prefix/$new" ] || rm -rf "$folder"
    done
    say "assistantd $version is installed"
}

# The new version may bring the databases to a schema that the old one cannot read.
keep_databases() {
    for database in sessions.db network/devices.db; do
        for part in '' -wal; do
            file=/var/lib/assistantd/$database$part
            if [ -e "$file" ]; then
                mkdir -p "$prefix/$new/databases"
                chmod 700 "$prefix/$new/databases"
                cp -p "$file" "$prefix/$new/databases/"
            fi
        done
    done
}

bring_back_databases() {
    systemctl stop assistantd.socket assistantd.service || true # what has failed is stopped
    if "$prefix/current/bin/python" -P -c "$readable" 2>/dev/null; then return 0; fi
    for database in sessions.db network/devices.db; do
        kept=$prefix/$new/databases/${database##*/} file=/var/lib/assistantd/$database
        if [ -e "$kept" ]; then
            rm -f "$file-wal" "$file-shm"
            cp -p "$kept" "$file"
            [ ! -e "$kept-wal" ] || cp -p "$kept-wal" "$file-wal"
        fi
    done
}

switch() { # at once: there is never a moment without `current`
    ln -sfn "$1" "$prefix/.current"
    mv -T "$prefix/.current" "$prefix/current"
}

start_service() {
    "$prefix/current/bin/assistant" service install --system --programs "$prefix/current/bin"
}

[ "$(id -u)" = 0 ] || die "root is needed, to install for all users: sudo $0. For yourself alone:" \
    "pipx install assistantd, then assistant service install"
[ "$(uname -s)" = Linux ] || die "this is for Linux; on macOS: pipx install assistantd"
"$mode"
