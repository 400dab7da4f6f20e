"""The log of a chain as one range of bytes, however its recovery points overlap."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlbak.engines.port import RestoreStep
from sqlbak.engines.postgres.frames import FrameReader
from sqlbak.engines.postgres.walsource import WalChain
from sqlbak.errors import RestoreFailed
from sqlbak.model import Point, PointType
from sqlbak.stopping import NEVER
from tests.engines.postgres.restores import MemorySource

AT = datetime(2026, 11, 22, tzinfo=UTC)
SEGMENT = 64
LOG = bytes(range(256)) * 4
"""The server's log from position 0 on."""


def step(kind: PointType, first: int, last: int) -> RestoreStep:
    point = Point(f"{kind}-{first}", kind, "1", first, last, AT, AT)
    facts = {"wal_first_lsn": first} if kind is PointType.FULL else {}
    return RestoreStep(point, facts, MemorySource({"wal": LOG[first:last]}, frame_size=16))


def whole(steps: list[RestoreStep]) -> tuple[int, bytes]:
    chain = WalChain(steps, lineage="1", histories={}, segment_size=SEGMENT)
    with FrameReader(NEVER) as frames:
        content = b"".join(
            bytes(piece) for _, lsn in chain.segments() for piece in chain.segment(frames, lsn)
        )
    return chain.first_lsn, content


@given(
    base=st.tuples(st.integers(0, 7), st.integers(1, 400)),
    begins_before=st.integers(0, 200),
    lengths=st.lists(st.integers(0, 150), max_size=5),
)
def test_every_segment_holds_the_server_s_bytes_once(
    base: tuple[int, int], begins_before: int, lengths: list[int]
) -> None:
    first, last = base[0] * SEGMENT, base[0] * SEGMENT + base[1]
    steps = [step(PointType.FULL, first, last)]
    # The first log that carries on from a full may have begun long before it.
    position = max(0, last - begins_before)
    for length in lengths:
        end = min(len(LOG), max(position + length, last))
        steps.append(step(PointType.LOG, position, end))
        position = end
    begin, content = whole(steps)
    end = max(last, position)
    assert begin == first
    assert len(content) % SEGMENT == 0
    assert content[: end - first] == LOG[first:end]
    assert not any(content[end - first :])


def test_a_log_that_holds_the_whole_base_takes_the_place_of_its_log() -> None:
    begin, content = whole([step(PointType.FULL, 128, 200), step(PointType.LOG, 100, 300)])
    assert begin == 128
    assert content[: 300 - 128] == LOG[128:300]
    assert len(content) == 3 * SEGMENT


def test_a_gap_in_the_log_is_refused() -> None:
    with pytest.raises(RestoreFailed, match="is missing"):
        whole([step(PointType.FULL, 128, 200), step(PointType.LOG, 201, 300)])
