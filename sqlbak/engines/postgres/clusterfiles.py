"""Lays out a cluster's files from the archives of its chain: a full, or a full and a differential.

Tablespaces go where the restore wants them, never where they lay. What makes the directory look
like a cluster, its control file, is not written here: it comes last of all.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sqlbak.engines.port import RestoreStep
from sqlbak.engines.postgres.chain import Chain, archives_size
from sqlbak.engines.postgres.combinedmanifest import (
    ManifestDamaged,
    WholeFile,
    combined_manifest,
)
from sqlbak.engines.postgres.comparing import Comparison
from sqlbak.engines.postgres.frames import FrameReader
from sqlbak.engines.postgres.ground import Ground
from sqlbak.engines.postgres.incrementalfile import BLOCK_SIZE, PREFIX
from sqlbak.engines.postgres.keeping import Keeper
from sqlbak.engines.postgres.overlay import DifferentialWriter, Filler, PartialFile, Rules
from sqlbak.engines.postgres.timelines import format_lsn, parse_lsn
from sqlbak.engines.postgres.unpack import FileWriter, read_archive
from sqlbak.errors import RestoreFailed
from sqlbak.progress import Progress
from sqlbak.stopping import StopSignal

__all__ = ["CONTROL_FILE", "ClusterFiles", "LaidOutFiles"]

CONTROL_FILE = "global/pg_control"

_BASE = "base.tar"
_MANIFEST = "backup_manifest"
_LABEL = "backup_label"
_HASHERS = 2
_STARTS_AT = re.compile(r"^START WAL LOCATION: ([0-9A-F]+/[0-9A-F]+) ", re.MULTILINE)
_BUILDS_ON = re.compile(r"^INCREMENTAL FROM LSN: ([0-9A-F]+/[0-9A-F]+)$", re.MULTILINE)
_INCREMENTAL_LINES = (b"INCREMENTAL FROM LSN: ", b"INCREMENTAL FROM TLI: ")


@dataclass(frozen=True, slots=True)
class LaidOutFiles:
    """The content of the control file, which makes the directory a cluster; and of how much of the
    full the right content was there already."""

    control_file: bytes
    kept_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ClusterFiles:
    """One layout. ``places``: where each tablespace that does not lie inside the data directory
    goes, by its id. ``comparison``: what of the full is there already; None: nothing."""

    chain: Chain
    directory: Path
    places: Mapping[int, Path]
    ground: Ground
    frames: FrameReader
    progress: Progress
    stop: StopSignal
    comparison: Comparison | None = None

    def lay_out(self) -> LaidOutFiles:
        """Write everything but the control file. Not yet durable. RestoreFailed, ObjectDamaged,
        Interrupted."""
        for tablespace in self.chain.tablespaces:
            self.ground.directory(self._place(tablespace.oid))
        if self.chain.differential is not None:
            return self._overlay(self.chain.differential)
        if self.comparison is not None:
            return self._keep(self.comparison)
        return self._unpack(self.chain.full)

    def archive_places(self) -> dict[str, Path]:
        """The directory of each archive of the base."""
        places = {f"{t.oid}.tar": self._place(t.oid) for t in self.chain.tablespaces}
        return places | {_BASE: self.directory}

    def _place(self, oid: int) -> Path:
        if oid in self.places:
            return self.places[oid]
        inside = next(t.location for t in self.chain.tablespaces if t.oid == oid)
        return self.directory / inside

    def _rewritten(self) -> dict[str, bytes]:
        """The tablespace map, by which a server that starts from a backup makes its links."""
        if not self.places:
            return {}
        lines = [f"{oid} {_escaped(place)}\n" for oid, place in sorted(self.places.items())]
        return {"tablespace_map": "".join(lines).encode("utf-8", "surrogateescape")}

    def _link_tablespaces(self) -> None:
        for oid, place in self.places.items():
            self.ground.link(self.directory / "pg_tblspc" / str(oid), place)

    def _small_stream(self, step: RestoreStep, name: str) -> bytes:
        return b"".join(self.frames.read(step.source, name, 0, step.source.size(name)))

    def _write_small(self, name: str, content: bytes) -> None:
        self.ground.write_file(self.directory / name, content)

    def _unpack(self, full: RestoreStep) -> LaidOutFiles:
        """A full alone, all of it: its archives in order."""
        self.progress.phase("unpack", self.chain.archives_bytes)
        kept: dict[str, bytearray] = {}
        for name, place in self.archive_places().items():
            is_base = name == _BASE
            keep = frozenset({CONTROL_FILE} if is_base else ())
            writer = FileWriter(place, self.ground, self._rewritten() if is_base else {}, keep)
            self._read(full, name, writer)
            kept |= writer.kept
        self._link_tablespaces()
        self._write_small(_MANIFEST, self._small_stream(full, _MANIFEST))
        self.ground.remove_others()
        return LaidOutFiles(bytes(self._required(full, kept, CONTROL_FILE)))

    def _keep(self, comparison: Comparison) -> LaidOutFiles:
        """A full alone, and of it what is not there yet."""
        full = self.chain.full
        keeper = self._keeper(comparison)
        keeper.lay_out(self.archive_places(), self._rewritten(), {CONTROL_FILE})
        self._link_tablespaces()
        self._write_small(_MANIFEST, self._small_stream(full, _MANIFEST))
        self.ground.remove_others()
        keeper.fetch()
        control = comparison.files.get((_BASE, CONTROL_FILE))
        if control is None:
            raise RestoreFailed(f"{full.point.id} holds no {CONTROL_FILE}")
        begin = control.indexed.entry.offset
        content = self.frames.read(full.source, _BASE, begin, begin + control.size)
        return LaidOutFiles(b"".join(content), keeper.kept_bytes)

    def _keeper(self, comparison: Comparison) -> Keeper:
        return Keeper(
            comparison, self.chain.full.source, self.ground, self.frames, self.progress, self.stop
        )

    @staticmethod
    def _required(step: RestoreStep, kept: Mapping[str, bytearray], name: str) -> bytearray:
        if name not in kept:
            raise RestoreFailed(f"{step.point.id} holds no {name}")
        return kept[name]

    def _overlay(self, differential: RestoreStep) -> LaidOutFiles:
        """The differential, then what it lacks of the full."""
        sources = [differential] if self.comparison is not None else list(self.chain.bases)
        self.progress.phase("unpack", sum(map(archives_size, sources)))
        is_native = differential.facts["differential"]["method"] == "native"
        block_size = int(self.chain.settings[0].get("block_size") or BLOCK_SIZE)
        rules = Rules(block_size, zeros_beyond_base=is_native)
        partial_files: dict[str, dict[str, PartialFile]] = {}
        kept: dict[str, bytearray] = {}
        for name, place in self.archive_places().items():
            is_base = name == _BASE
            writer = DifferentialWriter(
                place,
                self.ground,
                self._rewritten() if is_base else {},
                rules=rules,
                is_tablespace=not is_base,
                keep=frozenset({_LABEL, CONTROL_FILE} if is_base else ()),
            )
            self._read(differential, name, writer)
            partial_files[name] = writer.partial_files
            kept |= writer.kept
        label = bytes(self._required(differential, kept, _LABEL))
        control = bytes(self._required(differential, kept, CONTROL_FILE))
        self._link_tablespaces()
        self._write_small(_LABEL, self._label(label, differential, is_native=is_native))
        self.ground.remove_others()
        kept_bytes = 0
        if self.comparison is not None:
            keeper = self._keeper(self.comparison)
            for name, files in partial_files.items():
                keeper.fill(name, files, rules)
            keeper.fetch()
            kept_bytes = keeper.kept_bytes
        else:
            for name, files in partial_files.items():
                self._fill(name, files, rules)
        manifest = self._small_stream(differential, _MANIFEST)
        if is_native:
            manifest = self._combined_manifest(manifest, partial_files)
        self._write_small(_MANIFEST, manifest)
        return LaidOutFiles(control, kept_bytes)

    def _read(self, step: RestoreStep, name: str, taker: FileWriter | Filler) -> None:
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
