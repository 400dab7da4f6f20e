"""Frames are independent, self-describing, and refused when they are not what was asked for."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlbak.vault.frames import Frame, FramePool, FrameUndecodable, FrameWriter, decode_frame


def frames_of(content: bytes, frame_bytes: int) -> list[Frame]:
    made: list[Frame] = []
    pool = FramePool(frame_bytes=frame_bytes, workers=2)
    writer = FrameWriter(pool, made.append, name="test")
    writer.write(content)
    writer.close()
    pool.close()
    return made


@given(st.binary(max_size=2000), st.integers(1, 300))
def test_frames_come_out_in_order_and_decode_alone(content: bytes, frame_bytes: int) -> None:
    made = frames_of(content, frame_bytes)
    assert b"".join(decode_frame(one.stored, one.raw_bytes) for one in made) == content
    assert all(one.raw_bytes == frame_bytes for one in made[:-1])


def test_each_frame_tells_its_raw_size_in_its_header() -> None:
    for frame in frames_of(bytes(10_500), 1000):
        with pytest.raises(FrameUndecodable, match=f"announces {frame.raw_bytes} raw bytes"):
            decode_frame(frame.stored, frame.raw_bytes + 1)


@pytest.mark.parametrize("announced", [999, 1001])
def test_a_frame_of_another_size_is_refused_before_it_is_decoded(
    announced: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = frames_of(bytes(1000), 1000)[0]

    def explode(data: bytes) -> bytes:
        raise AssertionError("decoded")

    monkeypatch.setattr("sqlbak.vault.frames.zstd.decompress", explode)
    with pytest.raises(FrameUndecodable, match="announces 1000"):
        decode_frame(frame.stored, announced)


@pytest.mark.parametrize("stored", [b"", b"junk", b"\x28\xb5\x2f\xfd"])
def test_what_is_no_frame_is_refused(stored: bytes) -> None:
    with pytest.raises(FrameUndecodable):
        decode_frame(stored, 10)


def test_buffers_of_words_are_taken_as_their_bytes() -> None:
    words = array("I", range(1000))
    made: list[Frame] = []
    pool = FramePool(frame_bytes=512)
    writer = FrameWriter(pool, made.append, name="test")
    writer.write(memoryview(words))
    writer.close()
    pool.close()
    joined = b"".join(decode_frame(one.stored, one.raw_bytes) for one in made)
    assert joined == words.tobytes()


def test_a_closed_writer_takes_nothing_more() -> None:
    pool = FramePool(frame_bytes=512)
    writer = FrameWriter(pool, lambda frame: None, name="test")
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.write(b"x")
    pool.close()
