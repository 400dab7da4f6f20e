#!/bin/sh
# Download packages of a Debian suite with all that they need into a folder, from the mirror that this
# machine is configured for; nothing is installed. Needs apt-get.
# Usage: tests/fetch_debian_packages.sh SUITE DIRECTORY PACKAGE...
set -eu
suite=$1 into=$2
shift 2
packages=$*
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
    sed -n -e 's/^URIs:[[:space:]]*\([^ ]*debian\/\{0,1\}\)[[:space:]]*$/\1/p' \
        -e 's/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*debian\/\{0,1\}\) .*/\2/p' | head -n 1)
[ -n "$mirror" ] || { echo "no Debian mirror is configured on this machine" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$into/partial"
echo "deb [signed-by=$keyring] $mirror $suite main" >"$work/sources.list"
set -- -q -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/nonexistent \
    -o Dir::State::lists="$work/lists" -o Dir::Cache="$work" -o Dir::Cache::archives="$into" \
    -o Dir::State::status=/dev/null -o Debug::NoLocking=1
apt-get "$@" update >/dev/null
# shellcheck disable=SC2086 # names of packages hold no spaces
apt-get "$@" install -y --download-only --no-install-recommends $packages >/dev/null
