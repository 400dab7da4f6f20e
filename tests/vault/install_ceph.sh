#!/bin/sh
# Unpack Debian unstable's Ceph (monitor, object store daemon, S3 gateway) into a folder of its own
# (default .cache/ceph), for the tests only: nothing is installed on the system. Older gateways break
# conditional writes, so those of Debian's releases will not do. Needs apt-get and dpkg-deb, 700 MB.
# Usage: tests/vault/install_ceph.sh [DIRECTORY]
set -eu
into=${1:-$(cd "$(dirname "$0")/../.." && pwd)/.cache/ceph}
[ -x "$into/usr/bin/radosgw" ] && exit 0
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
    sed -n -e 's/^URIs:[[:space:]]*\([^ ]*debian\/\{0,1\}\)[[:space:]]*$/\1/p' \
        -e 's/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*debian\/\{0,1\}\) .*/\2/p' | head -n 1)
[ -n "$mirror" ] || { echo "no Debian mirror is configured on this machine" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/archives/partial"
echo "deb [signed-by=$keyring] $mirror sid main" >"$work/sources.list"
set -- -q -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/nonexistent \
    -o Dir::State::lists="$work/lists" -o Dir::Cache="$work" -o Dir::State::status=/dev/null \
    -o Debug::NoLocking=1
apt-get "$@" update >/dev/null
apt-get "$@" install -y --download-only --no-install-recommends \
    ceph-mon ceph-osd radosgw ceph-common >/dev/null
rm -rf "$into"
mkdir -p "$into/usr/bin" "$into/usr/sbin" "$into/usr/lib" "$into/usr/lib64"
for name in bin sbin lib lib64; do
    ln -s "usr/$name" "$into/$name"
done
for package in "$work"/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink -C "$into" -f -
done
rm -rf "$into/usr/share/doc" "$into/usr/share/man" "$into/usr/share/locale"
chmod -R a+rX "$into"
