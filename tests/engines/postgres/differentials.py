"""Differentials for the tests of restore, made without any code of sqlbak's backup side: by
pg_basebackup --incremental, or by comparing two fulls page by page."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlbak.engines.port import BackupResult, RestoreStep
from sqlbak.engines.postgres.timelines import parse_lsn, segment_name, segment_start
from sqlbak.model import PointType
from tests.engines.postgres.clusters import Cluster
from tests.engines.postgres.incrementals import BLOCK, incremental_file
from tests.engines.postgres.restores import MemorySource, as_step

__all__ = ["contents", "native_differential", "pages_differential", "repacked", "streams_of"]

_RELATION = re.compile(r"(?:.*/)?(?:global|base/\d+|PG_[^/]+/\d+)/\d+(?:_[a-z]+)?(?:\.\d+)?")


def streams_of(step: RestoreStep) -> dict[str, bytes]:
    """The step's payload."""
    assert isinstance(step.source, MemorySource)
    return step.source.contents


def contents(archive: bytes) -> dict[str, bytes]:
    """Every file of a tar archive."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {
            member.name.removeprefix("./"): tar.extractfile(member).read()  # type: ignore[union-attr]
            for member in tar
            if member.isfile()
        }


def repacked(archive: bytes, changed: Mapping[str, tuple[str, bytes] | None]) -> bytes:
    """The archive with some of its files under another name and with other content, or gone."""
    out = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(archive)) as source,
        tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as target,
    ):
        for member in source:
            name = member.name.removeprefix("./")
            data = source.extractfile(member).read() if member.isfile() else b""  # type: ignore[union-attr]
            if name in changed:
                new = changed[name]
                if new is None:
                    continue
                member.name, data = new
            member.size = len(data)
            target.addfile(member, io.BytesIO(data))
    return out.getvalue()


def pages_differential(full: RestoreStep, later: RestoreStep) -> RestoreStep:
    """``later``, another full of the same cluster, as a differential of ``full``."""
    old, new = streams_of(full), dict(streams_of(later))
    for name, archive in new.items():
        if not name.endswith(".tar"):
            continue
        before = contents(old[name]) if name in old else {}
        changed: dict[str, tuple[str, bytes] | None] = {}
        for path, data in contents(archive).items():
            base = before.get(path, b"")
            if not _RELATION.fullmatch(path) or not base or len(base) % BLOCK or len(data) % BLOCK:
                continue
            blocks = {
                at // BLOCK: data[at : at + BLOCK]
                for at in range(0, len(data), BLOCK)
                if data[at : at + BLOCK] != base[at : at + BLOCK]
            }
            folder, _, last = path.rpartition("/")
            patched = incremental_file(blocks, len(data) // BLOCK)
            changed[path] = (f"{folder}/INCREMENTAL.{last}", patched)
        new[name] = repacked(archive, changed)
    return _as_differential(later, new, _facts_of("pages", full))


def native_differential(cluster: Cluster, full: RestoreStep, work: Path) -> RestoreStep:
    """What pg_basebackup --incremental makes, and beside it the log that it needs."""
    work.mkdir()
    manifest = work / "full_manifest"
    manifest.write_bytes(streams_of(full)["backup_manifest"])
    manifest.chmod(0o644)
    place = cluster.make_directory(f"incremental-{work.name}")
    started_at = datetime.now(UTC)
    cluster.run(
        "pg_basebackup",
        *("-d", cluster.dsn(), "-D", place, "-F", "tar", "-X", "none", "-c", "fast"),
        *("--incremental", manifest, "--no-sync"),
    )
    ((covers_until,),) = cluster.execute("SELECT clock_timestamp()")
    cluster.execute("SELECT pg_logical_emit_message(true, 'test', 'heartbeat')")
    ((end,),) = cluster.execute("SELECT pg_current_wal_flush_lsn()::text")
    streams = {path.name: path.read_bytes() for path in sorted(place.iterdir())}
    (range_,) = json.loads(streams["backup_manifest"])["WAL-Ranges"]
    start, last = parse_lsn(range_["Start-LSN"]), parse_lsn(end)
    size = int(full.facts["wal_segment_size"])
    first = segment_start(start, size)
    log = b"".join(
        (
            cluster.data_directory / "pg_wal" / segment_name(range_["Timeline"], at, size)
        ).read_bytes()
        for at in range(first, last, size)
    )
    streams["wal"] = log[: last - first]
    tablespaces = [
        {"oid": int(oid), "location": location, "size_bytes": 0}
        for oid, location in cluster.execute(
            "SELECT oid, pg_tablespace_location(oid) FROM pg_tablespace"
            " WHERE spcname NOT LIKE 'pg\\_%'"
        )
    ]
    result = BackupResult(
        type=PointType.DIFFERENTIAL,
        lineage=str(range_["Timeline"]),
        first_lsn=start,
        last_lsn=last,
        started_at=started_at,
        finished_at=covers_until,
        reachable_from=covers_until,
        covers_until=covers_until,
        facts={
            **full.facts,
            "timeline": range_["Timeline"],
            "start_lsn": start,
            "stop_lsn": parse_lsn(range_["End-LSN"]),
            "wal_first_lsn": first,
            "tablespaces": tablespaces,
            "log_tail": None,
            "differential": _facts_of("native", full),
        },
    )
    return as_step(result, streams)


def _facts_of(method: str, full: RestoreStep) -> dict[str, Any]:
    return {
        "method": method,
        "base_id": full.point.id,
        "base_start_lsn": full.facts["start_lsn"],
        "base_timeline": full.facts["timeline"],
    }


def _as_differential(
    later: RestoreStep, streams: dict[str, bytes], differential: dict[str, Any]
) -> RestoreStep:
    point = later.point
    result = BackupResult(
        type=PointType.DIFFERENTIAL,
        lineage=point.lineage,
        first_lsn=point.first_lsn,
        last_lsn=point.last_lsn,
        started_at=point.started_at,
        finished_at=point.finished_at,
        reachable_from=point.reachable_from,
        covers_until=point.covers_until,
        facts={**later.facts, "differential": differential},
    )
    return as_step(result, streams)
