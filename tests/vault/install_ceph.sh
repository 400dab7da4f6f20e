#!/bin/sh
# Unpack Debian unstable's Ceph (monitor, object store daemon, S3 gateway) into a folder of its own
# (default .cache/ceph), for the tests only: nothing is installed on the system. Older gateways break
# conditional writes, so those of Debian's releases will not do. Needs apt-get and dpkg-deb, 700 MB.
# Usage: tests/vault/install_ceph.sh [DIRECTORY]
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
into=${1:-$root/.cache/ceph}
[ -x "$into/usr/bin/radosgw" ] && exit 0
archives=$(mktemp -d)
trap 'rm -rf "$archives"' EXIT
"$root/tests/fetch_debian_packages.sh" sid "$archives" ceph-mon ceph-osd radosgw ceph-common
rm -rf "$into"
mkdir -p "$into/usr/bin" "$into/usr/sbin" "$into/usr/lib" "$into/usr/lib64"
for name in bin sbin lib lib64; do
    ln -s "usr/$name" "$into/$name"
done
for package in "$archives"/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink -C "$into" -f -
done
rm -rf "$into/usr/share/doc" "$into/usr/share/man" "$into/usr/share/locale"
chmod -R a+rX "$into"
