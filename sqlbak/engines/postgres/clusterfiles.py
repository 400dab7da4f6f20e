"""Lays out a cluster's files from the archives of its chain: a full, or a full and a differential.

Written into an empty directory; tablespaces go where the restore wants them, never where they
lay. What makes the directory look like a cluster, its control file, comes last of all.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sqlbak.engines.port import RestoreStep
from sqlbak.engines.postgres.chain import Chain
from sqlbak.engines.postgres.combinedmanifest import (
    ManifestDamaged,
    WholeFile,
    combined_manifest,
)
from sqlbak.engines.postgres.frames import FrameReader
from sqlbak.engines.postgres.incrementalfile import BLOCK_SIZE, PREFIX
from sqlbak.engines.postgres.overlay import DifferentialWriter, Filler, PartialFile, Rules
from sqlbak.engines.postgres.server import ServerUser
from sqlbak.engines.postgres.timelines import format_lsn, parse_lsn
from sqlbak.engines.postgres.unpack import read_archive, unpack_archive, write_file
from sqlbak.errors import RestoreFailed
from sqlbak.progress import Progress
from sqlbak.stopping import StopSignal

__all__ = ["ClusterFiles"]

_BASE = "base.tar"
_MANIFEST = "backup_manifest"
_LABEL = "backup_label"
_CONTROL_FILE = "global/pg_control"
_HASHERS = 2
_STARTS_AT = re.compile(r"^START WAL LOCATION: ([0-9A-F]+/[0-9A-F]+) ", re.MULTILINE)
_BUILDS_ON = re.compile(r"^INCREMENTAL FROM LSN: ([0-9A-F]+/[0-9A-F]+)$", re.MULTILINE)
_INCREMENTAL_LINES = (b"INCREMENTAL FROM LSN: ", b"INCREMENTAL FROM TLI: ")


@dataclass(frozen=True, slots=True)
class ClusterFiles:
    """One layout. ``places``: where each tablespace that does not lie inside the data directory
    goes, by its id."""

    chain: Chain
    directory: Path
    places: Mapping[int, Path]
    user: ServerUser
    frames: FrameReader
    progress: Progress
    stop: StopSignal

    def lay_out(self) -> None:
        """Write everything. Not yet durable. RestoreFailed, ObjectDamaged, Interrupted."""
        self.progress.phase("unpack", self.chain.archives_bytes)
        for tablespace in self.chain.tablespaces:
            self._make_directory(self._place(tablespace.oid))
        if self.chain.differential is None:
            self._unpack(self.chain.full)
        else:
            self._overlay(self.chain.differential)

    def _place(self, oid: int) -> Path:
        if oid in self.places:
            return self.places[oid]
        inside = next(t.location for t in self.chain.tablespaces if t.oid == oid)
        return self.directory / inside

    def _make_directory(self, path: Path) -> None:
        missing = [step for step in (path, *path.parents) if not step.exists()]
        for step in reversed(missing):
            step.mkdir(mode=0o700)
            self.user.own(step)

    def _rewritten(self) -> dict[str, bytes]:
        """The tablespace map, by which a server that starts from a backup makes its links."""
        if not self.places:
            return {}
        lines = [f"{oid} {_escaped(place)}\n" for oid, place in sorted(self.places.items())]
        return {"tablespace_map": "".join(lines).encode("utf-8", "surrogateescape")}

    def _link_tablespaces(self) -> None:
        for oid, place in self.places.items():
            link = self.directory / "pg_tblspc" / str(oid)
            link.symlink_to(place)
            self.user.own(link)

    def _small_stream(self, step: RestoreStep, name: str) -> bytes:
        return b"".join(self.frames.read(step.source, name, 0, step.source.size(name)))

    def _unpack(self, full: RestoreStep) -> None:
        """A full alone: its archives in order, the last of which ends with the control file."""
        archives = [(f"{t.oid}.tar", self._place(t.oid)) for t in self.chain.tablespaces]
        for name, place in [*archives, (_BASE, self.directory)]:
            unpack_archive(
                full.source,
                name,
                place,
                frames=self.frames,
                user=self.user,
                rewritten=self._rewritten() if name == _BASE else {},
                progress=self.progress,
                stop=self.stop,
            )
        self._link_tablespaces()
        manifest = self._small_stream(full, _MANIFEST)
        write_file(self.directory / _MANIFEST, manifest, self.user)

    def _overlay(self, differential: RestoreStep) -> None:
        """The differential, then what it lacks of the full."""
        is_native = differential.facts["differential"]["method"] == "native"
        block_size = int(self.chain.settings[0].get("block_size") or BLOCK_SIZE)
        rules = Rules(block_size, zeros_beyond_base=is_native)
        partial_files: dict[str, dict[str, PartialFile]] = {}
        kept: dict[str, bytearray] = {}
        for oid in [*(t.oid for t in self.chain.tablespaces), None]:
            name = _BASE if oid is None else f"{oid}.tar"
            writer = DifferentialWriter(
                self.directory if oid is None else self._place(oid),
                self.user,
                self._rewritten() if oid is None else {},
                rules=rules,
                is_tablespace=oid is not None,
                keep=frozenset({_LABEL, _CONTROL_FILE} if oid is None else ()),
            )
            self._read(differential, name, writer)
            partial_files[name] = writer.partial_files
            kept |= writer.kept
        if kept.keys() != {_LABEL, _CONTROL_FILE}:
            raise RestoreFailed(f"{differential.point.id} holds no {_LABEL} or no {_CONTROL_FILE}")
        self._link_tablespaces()
        for name, files in partial_files.items():
            self._fill(name, files, rules)
        label = self._label(bytes(kept[_LABEL]), differential, is_native=is_native)
        write_file(self.directory / _LABEL, label, self.user)
        manifest = self._small_stream(differential, _MANIFEST)
        if is_native:
            manifest = self._combined_manifest(manifest, partial_files)
        write_file(self.directory / _MANIFEST, manifest, self.user)
        write_file(self.directory / _CONTROL_FILE, bytes(kept[_CONTROL_FILE]), self.user)

    def _read(self, step: RestoreStep, name: str, taker: DifferentialWriter | Filler) -> None:
        read_archive(
            step.source,
            name,
            taker,
            frames=self.frames,
            progress=self.progress,
            stop=self.stop,
        )

    def _fill(self, name: str, files: Mapping[str, PartialFile], rules: Rules) -> None:
        filler = Filler(files, rules)
        full = self.chain.full
        if not files:
            if name in full.source.streams():
                self.progress.advance(full.source.size(name))
        elif name in full.source.streams():
            self._read(full, name, filler)
        else:
            filler.finish()

    def _label(self, label: bytes, differential: RestoreStep, *, is_native: bool) -> bytes:
        """The differential's label as that of a full, after it was seen to belong to this chain."""
        text = label.decode("utf-8", "surrogateescape")
        starts_at, builds_on = _STARTS_AT.search(text), _BUILDS_ON.search(text)
        expected = int(differential.facts["start_lsn"])
        if starts_at is None or parse_lsn(starts_at[1]) != expected:
            raise RestoreFailed(
                f"the label of {differential.point.id} does not say that it starts at "
                f"{format_lsn(expected)}"
            )
        base_lsn = parse_lsn(builds_on[1]) if builds_on else None
        if base_lsn != (int(self.chain.full.facts["start_lsn"]) if is_native else None):
            raise RestoreFailed(
                f"{differential.point.id} builds on another backup than {self.chain.full.point.id}"
            )
        lines = label.splitlines(keepends=True)
        return b"".join(line for line in lines if not line.startswith(_INCREMENTAL_LINES))

    def _combined_manifest(
        self, incremental: bytes, partial_files: Mapping[str, Mapping[str, PartialFile]]
    ) -> bytes:
        places: dict[str, str] = {}  # by the path that the incremental manifest names
        for name, files in partial_files.items():
            prefix = "" if name == _BASE else f"pg_tblspc/{name.removesuffix('.tar')}/"
            for path in files:
                folder, _, last = path.rpartition("/")
                places[f"{prefix}{folder}/{PREFIX}{last}"] = f"{prefix}{path}"
        places |= {name: name for name in (_LABEL, *self._rewritten())}
        self.progress.phase("checksums")
        with ThreadPoolExecutor(_HASHERS, thread_name_prefix="sqlbak-hash") as pool:
            wholes = dict(zip(places, pool.map(self._whole_file, places.values()), strict=True))
        try:
            return combined_manifest(incremental, wholes)
        except ManifestDamaged as error:
            raise RestoreFailed(
                f"the differential's backup_manifest is damaged: {error}"
            ) from error

    def _whole_file(self, path: str) -> WholeFile:
        self.stop.check()
        with (self.directory / path).open("rb", buffering=0) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
        self.progress.advance(size)
        return WholeFile(path, size, digest)


def _escaped(place: Path) -> str:
    """A path as tablespace_map wants it (backslash before what ends a line)."""
    text = str(place).replace("\\", "\\\\")
    return text.replace("\n", "\\\n").replace("\r", "\\\r")
