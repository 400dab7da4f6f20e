"""Laying a differential's archive over a full's, file by file, from bytes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sqlbak.engines.postgres.frames import FrameReader
from sqlbak.engines.postgres.ground import EmptyGround
from sqlbak.engines.postgres.overlay import DifferentialWriter, Filler, Rules
from sqlbak.engines.postgres.server import ServerUser
from sqlbak.engines.postgres.unpack import read_archive
from sqlbak.errors import RestoreFailed
from sqlbak.progress import NO_PROGRESS
from sqlbak.stopping import NEVER
from tests.engines.postgres.incrementals import incremental_file
from tests.engines.postgres.restores import MemorySource
from tests.engines.postgres.tars import archive_of

_SIZE = 16
_ZEROS = bytes(_SIZE)
_US = ServerUser(os.geteuid(), os.getegid(), "us")


def _overlay(
    directory: Path,
    full: Mapping[str, bytes | None],
    differential: Mapping[str, bytes | None],
    *,
    is_native: bool = False,
    is_tablespace: bool = False,
    frame_size: int = 700,
) -> dict[str, bytes | None]:
    """What lies in ``directory`` after both."""
    rules = Rules(_SIZE, zeros_beyond_base=is_native)
    source = MemorySource(
        {"full": archive_of(full), "differential": archive_of(differential)}, frame_size
    )
    writer = DifferentialWriter(
        directory, EmptyGround(_US), {}, rules=rules, is_tablespace=is_tablespace
    )
    with FrameReader(NEVER) as frames:
        read_archive(
            source, "differential", writer, frames=frames, progress=NO_PROGRESS, stop=NEVER
        )
        filler = Filler(writer.partial_files, rules)
        read_archive(source, "full", filler, frames=frames, progress=NO_PROGRESS, stop=NEVER)
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in directory.rglob("*")
    }


def _blocks(*numbers: int) -> bytes:
    return b"".join(bytes([number]) * _SIZE for number in numbers)


@st.composite
def _cases(draw: st.DrawFn) -> tuple[bytes, dict[int, bytes], int, int]:
    base = draw(st.binary(max_size=20 * _SIZE + 3))
    blocks = draw(
        st.dictionaries(st.integers(0, 25), st.binary(min_size=_SIZE, max_size=_SIZE), max_size=25)
    )
    return base, blocks, draw(st.integers(0, 25)), draw(st.integers(1, 3000))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(case=_cases(), is_native=st.booleans())
@example(case=(_blocks(1, 2, 3), {}, 3, 700), is_native=False)
@example(case=(_blocks(1, 2, 3), {5: _blocks(9)}, 4, 700), is_native=True)
@example(case=(_blocks(1, 2, 3, 4), {3: _blocks(9)}, 1, 700), is_native=True)
@example(case=(_blocks(1, 2, 3, 4), {3: _blocks(9)}, 1, 700), is_native=False)
def test_every_block_is_the_newest_there_is(
    case: tuple[bytes, dict[int, bytes], int, int],
    is_native: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    base, blocks, truncation, frame_size = case
    there = len(base) // _SIZE
    length = max([truncation, *(number + 1 for number in blocks)])
    made_up = [
        number
        for number in range(length)
        if number not in blocks and (number >= there or number >= truncation)
    ]
    expected = b"".join(
        blocks.get(number, _ZEROS if number in made_up else base[number * _SIZE :][:_SIZE])
        for number in range(length)
    )
    full = {"base/1/2": base, "base/1/3": b"gone"}
    differential = {
        "base/1": None,
        "base/1/INCREMENTAL.2": incremental_file(blocks, truncation, block_size=_SIZE),
        "base/1/4": b"new",
    }
    directory = tmp_path_factory.mktemp("overlay")
    options = {"is_native": is_native, "frame_size": frame_size}
    if made_up and not is_native:
        with pytest.raises(RestoreFailed, match=r"neither in the full|leaves out block"):
            _overlay(directory, full, differential, **options)
    else:
        assert _overlay(directory, full, differential, **options) == {
            "base": None,
            "base/1": None,
            "base/1/2": expected,
            "base/1/4": b"new",
        }


def test_what_the_differential_does_not_name_is_gone(tmp_path: Path) -> None:
    full = {"base": None, "base/1": None, "base/1/2": b"x", "pg_old": None, "pg_old/file": b"y"}
    assert _overlay(tmp_path, full, {"base": None, "empty": b""}) == {"base": None, "empty": b""}


def test_a_whole_file_replaces_another_whatever_their_sizes(tmp_path: Path) -> None:
    full = {"base/1/2": _blocks(1, 2, 3)}
    assert _overlay(tmp_path, full, {"base/1/2": b"short"})["base/1/2"] == b"short"


def test_a_file_of_a_tablespace_may_be_partial_too(tmp_path: Path) -> None:
    patch = incremental_file({1: _blocks(9)}, 2, block_size=_SIZE)
    found = _overlay(
        tmp_path, {"PG_1/5/6": _blocks(1, 2)}, {"PG_1/5/INCREMENTAL.6": patch}, is_tablespace=True
    )
    assert found["PG_1/5/6"] == _blocks(1, 9)


def test_a_name_outside_of_relations_means_nothing(tmp_path: Path) -> None:
    found = _overlay(tmp_path, {}, {"pg_x/INCREMENTAL.6": b"whatever"})
    assert found["pg_x/INCREMENTAL.6"] == b"whatever"


@pytest.mark.parametrize("is_native", [False, True])
def test_a_partial_file_that_the_full_lacks_is_refused(tmp_path: Path, is_native: bool) -> None:
    patch = incremental_file({1: _blocks(9)}, 2, block_size=_SIZE)
    with pytest.raises(RestoreFailed, match="the full has no such file"):
        _overlay(tmp_path, {}, {"base/1/INCREMENTAL.2": patch}, is_native=is_native)


def test_damaged_blocks_are_refused(tmp_path: Path) -> None:
    patch = incremental_file({1: _blocks(9)}, 2, block_size=_SIZE)[:-1]
    with pytest.raises(RestoreFailed, match=r"blocks of base/1/2 are damaged"):
        _overlay(tmp_path, {}, {"base/1/INCREMENTAL.2": patch})


def test_a_file_both_whole_and_partial_is_refused(tmp_path: Path) -> None:
    patch = incremental_file({}, 0, block_size=_SIZE)
    with pytest.raises(FileExistsError):
        _overlay(tmp_path, {}, {"base/1/2": b"x", "base/1/INCREMENTAL.2": patch})


def test_long_content_that_nobody_wants_is_not_fetched(tmp_path: Path) -> None:
    size = 1 << 20
    read: set[int] = set()
    archive = archive_of({"base/1/dropped": bytes(100 * size), "base/1/2": _blocks(1, 2)})
    patch = incremental_file({1: _blocks(9)}, 2, block_size=_SIZE)
    writer = DifferentialWriter(
        tmp_path,
        EmptyGround(_US),
        {},
        rules=Rules(_SIZE, zeros_beyond_base=False),
        is_tablespace=False,
    )
    source = MemorySource(
        {"full": archive, "differential": archive_of({"base/1/INCREMENTAL.2": patch})},
        size,
        lambda stream, index: read.add(index) if stream == "full" else None,
    )
    with FrameReader(NEVER, budget_bytes=4 * size) as frames:
        read_archive(
            source, "differential", writer, frames=frames, progress=NO_PROGRESS, stop=NEVER
        )
        filler = Filler(writer.partial_files, Rules(_SIZE, zeros_beyond_base=False))
        read_archive(source, "full", filler, frames=frames, progress=NO_PROGRESS, stop=NEVER)
    assert (tmp_path / "base/1/2").read_bytes() == _blocks(1, 9)
    assert len(read) < 10
