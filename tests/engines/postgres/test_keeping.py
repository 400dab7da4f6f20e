"""Keeping what is right of an older state, from bytes: the result is that of an empty directory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from sqlbak.engines.postgres.comparing import compare
from sqlbak.engines.postgres.frames import FrameReader
from sqlbak.engines.postgres.ground import UsedGround
from sqlbak.engines.postgres.keeping import Keeper
from sqlbak.engines.postgres.overlay import DifferentialWriter, Rules
from sqlbak.engines.postgres.pagehash import PageHash
from sqlbak.engines.postgres.pagemapping import mapping_pages
from sqlbak.engines.postgres.server import ServerUser
from sqlbak.engines.postgres.unpack import read_archive
from sqlbak.progress import NO_PROGRESS
from sqlbak.stopping import NEVER
from tests.engines.postgres.backups import MemorySink
from tests.engines.postgres.incrementals import incremental_file
from tests.engines.postgres.restores import MemorySource
from tests.engines.postgres.tars import archive_of

_SIZE = 16
_HASH = PageHash(7, _SIZE)
_US = ServerUser(os.geteuid(), os.getegid(), "us")
_PATHS = ("base/1/2", "base/1/2.1", "base/5/16384", "PG_VERSION", "pg_xact/0000")

_block = st.integers(0, 4).map(lambda number: bytes([number]) * _SIZE)
_relation = st.lists(_block, max_size=6).map(b"".join)
_file = st.one_of(_relation, st.binary(max_size=40))
_files = st.dictionaries(st.sampled_from(_PATHS), _file)


def _full(files: Mapping[str, bytes]) -> MemorySource:
    sink = MemorySink()
    with mapping_pages(sink, _HASH) as mapped, mapped.stream("base.tar") as out:
        out.write(archive_of(files))
    return MemorySource(sink.streams, 200)


def _found(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def _lay(directory: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)


@given(full=_files, there=_files)
@settings(deadline=None)
def test_a_directory_becomes_what_the_full_says_whatever_it_held(
    full: dict[str, bytes], there: dict[str, bytes]
) -> None:
    with tempfile.TemporaryDirectory() as name, FrameReader(NEVER) as frames:
        directory = Path(name)
        _lay(directory, there)
        source, places = _full(full), {"base.tar": directory}
        comparison = compare(
            source,
            _HASH,
            places,
            [directory],
            only_pages=False,
            progress=NO_PROGRESS,
            stop=NEVER,
        )
        assert _found(directory) == there
        ground = UsedGround(_US, directory, (), keeps=comparison.kept_paths(), spared=())
        keeper = Keeper(comparison, source, ground, frames, NO_PROGRESS, NEVER)
        keeper.lay_out(places, {}, ())
        ground.remove_others()
        keeper.fetch()
        assert _found(directory) == full
        assert keeper.kept_bytes <= sum(map(len, full.values()))
        if full == there:
            assert keeper.kept_bytes == sum(map(len, full.values()))


@given(
    full=_relation.filter(bool),
    there=_file,
    blocks=st.dictionaries(st.integers(0, 8), _block, max_size=4),
    truncation=st.integers(0, 9),
)
@settings(deadline=None)
def test_what_a_differential_leaves_out_is_the_full_s_or_zeros_and_never_what_was_there(
    full: bytes, there: bytes, blocks: dict[int, bytes], truncation: int
) -> None:
    path, rules = "base/1/2", Rules(_SIZE, zeros_beyond_base=True)
    patch = incremental_file(blocks, truncation, block_size=_SIZE)
    length = max([truncation, *(number + 1 for number in blocks)])
    base = {at // _SIZE: full[at : at + _SIZE] for at in range(0, len(full), _SIZE)}
    expected = b"".join(
        blocks.get(number)
        or (base.get(number, bytes(_SIZE)) if number < truncation else bytes(_SIZE))
        for number in range(length)
    )
    with tempfile.TemporaryDirectory() as name, FrameReader(NEVER) as frames:
        directory = Path(name)
        _lay(directory, {path: there})
        source, places = _full({path: full}), {"base.tar": directory}
        differential = MemorySource({"base.tar": archive_of({"base/1/INCREMENTAL.2": patch})})
        comparison = compare(
            source, _HASH, places, [directory], only_pages=True, progress=NO_PROGRESS, stop=NEVER
        )
        ground = UsedGround(_US, directory, (), keeps=comparison.kept_paths(), spared=())
        writer = DifferentialWriter(directory, ground, {}, rules=rules, is_tablespace=False)
        read_archive(
            differential, "base.tar", writer, frames=frames, progress=NO_PROGRESS, stop=NEVER
        )
        keeper = Keeper(comparison, source, ground, frames, NO_PROGRESS, NEVER)
        keeper.fill("base.tar", writer.partial_files, rules)
        keeper.fetch()
        assert _found(directory) == {path: expected}
