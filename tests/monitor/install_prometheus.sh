#!/bin/sh
# Unpack Debian's Prometheus into a folder of its own (default .cache/prometheus), for the tests only:
# nothing is installed on the system. Needs apt-get and dpkg-deb. Prints the folder with the programs.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
into=${1:-$root/.cache/prometheus}
bin=$into/usr/bin
if [ -x "$bin/promtool" ] && "$bin/promtool" --version >/dev/null 2>&1; then
    echo "$bin"
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir -p lists/partial cache
download() { apt-get -q -o APT::Sandbox::User=root "$@" download prometheus >/dev/null 2>&1; }
fresh="-o Dir::State::lists=$work/lists -o Dir::Cache=$work/cache -o Debug::NoLocking=1"
# shellcheck disable=SC2086 # several options
if ! download; then
    # The machine's own package lists are not there, or old.
    apt-get -q $fresh update >/dev/null 2>&1 && download $fresh || {
        echo "prometheus cannot be had from this machine's package mirror" >&2
        exit 1
    }
fi
mkdir -p "$into"
dpkg-deb -x prometheus_*.deb "$into"
rm -rf "$into/usr/share"
"$bin/promtool" --version >&2
echo "$bin"
