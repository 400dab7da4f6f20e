"""A differential combined with its full by PostgreSQL's own program, to compare with: from the
objects in the vault, unpacked by zstd and tar."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

from tests.acceptance.site import Site
from tests.engines.postgres.clusters import Cluster, give_to_server_user

__all__ = ["assert_same_files", "combined_by_postgres"]

_DIFFER = {"backup_manifest", "pg_wal", "postgresql.auto.conf", "recovery.signal"}
"""What a restore adds to, or makes otherwise: log, settings, and what says so."""
_PLACES = {"tablespace_map", "sqlbak_tablespaces"}


def combined_by_postgres(site: Site, cluster: Cluster, points: list[str], home: Path) -> Path:
    """``pg_combinebackup`` of these recovery points, a full and a native differential."""
    inputs = [_plain(site, point, home / point) for point in points]
    links = (inputs[-1] / "pg_tblspc").iterdir()
    mappings = [f"--tablespace-mapping={link.resolve()}={home}/to-{link.name}" for link in links]
    out = home / "combined"
    cluster.run("pg_combinebackup", "--no-sync", *mappings, *inputs, "-o", out)
    return out


def _plain(site: Site, point: str, place: Path) -> Path:
    """The recovery point as ``pg_basebackup --format=plain`` would have left it."""
    (data,) = (site.root / "vault").glob(f"items/*/data/{point}")
    place.mkdir(mode=0o700)
    for archive in sorted({path.name.partition(".tar")[0] for path in data.glob("*.tar.*")}):
        into = place if archive == "base" else place.with_name(f"{place.name}-{archive}")
        into.mkdir(mode=0o700, exist_ok=True)
        _shell(f"cat {data}/{archive}.tar.* | zstd -dc | tar -x -C {into}")
    _shell(f"cat {data}/backup_manifest.* | zstd -dc > {place}/backup_manifest")
    for archive in place.parent.glob(f"{place.name}-*"):
        oid = archive.name.rpartition("-")[2]
        link = place / "pg_tblspc" / oid
        link.unlink(missing_ok=True)
        link.symlink_to(archive)
        give_to_server_user(archive)
    (place / "tablespace_map").unlink(missing_ok=True)
    give_to_server_user(place)
    return place


def _shell(command: str) -> None:
    subprocess.run(["sh", "-c", command], check=True)


def assert_same_files(one: Path, other: Path) -> None:
    """Two cluster directories hold the same files, byte for byte."""
    found, expected = _digests(one), _digests(other)
    assert found.keys() == expected.keys()
    assert [name for name, digest in found.items() if digest != expected[name]] == []


def _digests(directory: Path) -> dict[str, str]:
    digests: dict[str, str] = {}
    for folder, folders, files in os.walk(directory, followlinks=True):
        if Path(folder) == directory:
            folders[:] = [name for name in folders if name not in _DIFFER | _PLACES]
        for name in files:
            path = Path(folder) / name
            relative = str(path.relative_to(directory))
            if relative not in _DIFFER | _PLACES:
                with path.open("rb") as file:
                    digests[relative] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests
