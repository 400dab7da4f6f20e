"""The spool from which a recovering server takes its log, asked the way the server asks."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sqlbak.engines.port import RestoreStep
from sqlbak.engines.postgres.frames import FrameReader
from sqlbak.engines.postgres.server import ServerUser
from sqlbak.engines.postgres.walfeed import WalFeed
from sqlbak.engines.postgres.walsource import WalChain
from sqlbak.engines.postgres.walspool import WalSpool
from sqlbak.errors import RestoreFailed, StoreUnreachable
from sqlbak.model import Point, PointType
from sqlbak.progress import NO_PROGRESS
from sqlbak.stopping import NEVER
from tests.engines.postgres.restores import MemorySource

_MEGABYTE = 1 << 20
_NOW = datetime(2024, 5, 1, tzinfo=UTC)


def _step(kind: PointType, lineage: str, first: int, data: bytes, step: int = 4096) -> RestoreStep:
    point = Point(f"{kind}-{first}", kind, lineage, first, first + len(data), _NOW, _NOW)
    return RestoreStep(point, {"wal_first_lsn": first}, MemorySource({"wal": data}, step))


def _chain(*steps: RestoreStep, lineage: str = "1", **histories: bytes) -> WalChain:
    known = {name.removeprefix("t"): content for name, content in histories.items()}
    return WalChain(steps, lineage=lineage, histories=known, segment_size=_MEGABYTE)


def _bytes(seed: int, length: int) -> bytes:
    return (seed.to_bytes(4, "big") * (length // 4 + 1))[:length]


@contextmanager
def _feeding(
    chain: WalChain, directory: Path, *, give_up_seconds: float = 60, **options: int
) -> Iterator[WalFeed]:
    with (
        FrameReader(NEVER) as frames,
        WalFeed(
            chain,
            _spool(directory, give_up_seconds),
            frames=frames,
            progress=NO_PROGRESS,
            **options,
        ) as feed,
    ):
        yield feed


def _spool(directory: Path, give_up_seconds: float = 60) -> WalSpool:
    user = ServerUser(os.geteuid(), os.getegid(), "us")
    return WalSpool(directory, user, "nobody feeds", give_up_seconds)


def _ask(spool: Path, name: str, target: Path, timeout: float = 20) -> int:
    """What the server does: expand %f and %p and let the shell run it. One that dies leaves its
    question to nobody."""
    command = _spool(spool).restore_command().replace("%f", name).replace("%p", str(target))
    process = subprocess.Popen(["sh", "-c", command], start_new_session=True)
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


def _full(length: int) -> RestoreStep:
    return _step(PointType.FULL, "1", _MEGABYTE, _bytes(7, length))


def test_segments_come_whole_and_in_any_order(tmp_path: Path) -> None:
    chain = _chain(_full(5 * _MEGABYTE + 1000))
    wanted = tmp_path / "wanted"
    with _feeding(chain, tmp_path / "spool", budget_bytes=1):
        for number in (1, 2, 3, 2, 3, 4, 1, 6):
            assert _ask(tmp_path / "spool", f"0000000100000000{number:08X}", wanted) == 0
            length = _MEGABYTE if number < 6 else 1000
            expected = _bytes(7, length).ljust(_MEGABYTE, b"\0")
            assert wanted.read_bytes() == expected


def test_only_proven_absence_exits_one(tmp_path: Path) -> None:
    chain = _chain(_full(2 * _MEGABYTE))
    with _feeding(chain, tmp_path / "spool"):
        for name in (
            "000000010000000000000003",
            "000000020000000000000001",
            "0000000100000001000000FF",
        ):
            assert _ask(tmp_path / "spool", name, tmp_path / "x") == 1
        assert _ask(tmp_path / "spool", "00000001.history", tmp_path / "x") == 1
    assert _ask(tmp_path / "spool", "000000010000000000000003", tmp_path / "x") == 255


def test_a_failing_store_answers_255_and_is_named(tmp_path: Path) -> None:
    step = _full(3 * _MEGABYTE)

    def fail(stream: str, index: int) -> None:
        raise StoreUnreachable("the store is gone")

    assert isinstance(step.source, MemorySource)
    step.source.before_read = fail
    with _feeding(_chain(step), tmp_path / "spool") as feed:
        assert _ask(tmp_path / "spool", "000000010000000000000001", tmp_path / "x") == 255
        with pytest.raises(StoreUnreachable, match="the store is gone"):
            feed.check()


def test_a_feeder_that_is_gone_answers_255(tmp_path: Path) -> None:
    chain = _chain(_full(2 * _MEGABYTE))
    with _feeding(chain, tmp_path / "spool", give_up_seconds=0.3):
        pass
    (tmp_path / "spool" / "shut").unlink()  # as if we had been killed
    assert _ask(tmp_path / "spool", "00000001.history", tmp_path / "x") == 255


def test_the_gate_stays_shut_until_promotion_is_permitted(tmp_path: Path) -> None:
    chain = _chain(_full(_MEGABYTE), t2=b"1\t0/100000\tx\n")
    with _feeding(chain, tmp_path / "spool") as feed:
        with pytest.raises(subprocess.TimeoutExpired):
            _ask(tmp_path / "spool", "00000002.history", tmp_path / "x", timeout=1)
        assert feed.is_at_gate
        feed.permit_promotion()
        assert _ask(tmp_path / "spool", "00000002.history", tmp_path / "x") == 0
        assert (tmp_path / "x").read_bytes() == b"1\t0/100000\tx\n"
        assert _ask(tmp_path / "spool", "00000003.history", tmp_path / "x") == 1


def test_the_spool_never_grows_beyond_its_budget(tmp_path: Path) -> None:
    chain = _chain(_full(9 * _MEGABYTE))
    ready = tmp_path / "spool" / "ready"
    with _feeding(chain, tmp_path / "spool", budget_bytes=3 * _MEGABYTE):
        for number in range(1, 10):
            assert _ask(tmp_path / "spool", f"0000000100000000{number:08X}", tmp_path / "x") == 0
            time.sleep(0.05)
            assert len(list(ready.iterdir())) <= 3


def test_after_a_fork_the_child_s_log_wins_under_the_child_s_name(tmp_path: Path) -> None:
    fork = 2 * _MEGABYTE + 512
    parent = _step(PointType.LOG, "1", 2 * _MEGABYTE, _bytes(1, 4096))
    child = _step(PointType.LOG, "2", fork, _bytes(2, _MEGABYTE))
    history = f"1\t0/{fork:X}\tno recovery target specified\n".encode()
    chain = _chain(_full(_MEGABYTE), parent, child, lineage="2", t2=history)
    assert [name for name, _ in chain.segments()] == [
        "000000010000000000000001",
        "000000020000000000000002",
        "000000020000000000000003",
    ]
    assert chain.position_of("000000010000000000000002") is None
    with FrameReader(NEVER) as frames:
        segment = b"".join(chain.segment(frames, 2 * _MEGABYTE))
    assert segment == _bytes(1, 512) + _bytes(2, _MEGABYTE - 512)


def test_log_of_a_timeline_that_is_no_ancestor_is_refused() -> None:
    with pytest.raises(RestoreFailed, match="does not descend"):
        _chain(_full(_MEGABYTE), _step(PointType.LOG, "3", 2 * _MEGABYTE, b"x"))


def test_a_timeline_without_its_history_is_refused() -> None:
    with pytest.raises(RestoreFailed, match="history of timeline 2"):
        _chain(_full(_MEGABYTE), lineage="2")


def test_logs_that_overlap_join(tmp_path: Path) -> None:
    whole = bytes(range(256)) * 8192
    pieces = [(0, 900_000), (800_000, 1_000_000), (1_000_000, 1_000_000), (950_000, 2_000_000)]
    steps = [_step(PointType.FULL, "1", _MEGABYTE, whole[slice(*pieces[0])])]
    steps += [
        _step(PointType.LOG, "1", _MEGABYTE + first, whole[first:last])
        for first, last in pieces[1:]
    ]
    chain = _chain(*steps)
    with FrameReader(NEVER, budget_bytes=10_000) as frames:
        assert b"".join(chain.read(frames, chain.first_lsn, chain.last_lsn)) == whole[:2_000_000]
        assert (
            b"".join(chain.read(frames, _MEGABYTE + 899_990, _MEGABYTE + 1_000_010))
            == (whole[899_990:1_000_010])
        )


def test_whatever_becomes_of_the_script_is_no_absence(tmp_path: Path) -> None:
    """A shell that finds no script ends with 2 or 127, one that is killed with more than 128."""
    chain = _chain(_full(2 * _MEGABYTE))
    spool = tmp_path / "spool"
    with _feeding(chain, spool):
        assert _ask(spool, "000000010000000000000003", tmp_path / "x") == 1
        for content in ("exit 1\n", "exit 2\n", "kill -9 $$\n", "if\n"):
            (spool / "fetch.sh").write_text(content)
            assert _ask(spool, "000000010000000000000003", tmp_path / "x") == 255
        (spool / "fetch.sh").unlink()
        assert _ask(spool, "000000010000000000000003", tmp_path / "x") == 255
    assert _ask(tmp_path / "nowhere", "000000010000000000000003", tmp_path / "x") == 255


def test_log_of_the_next_recovery_points_is_fetched_while_the_first_is_read(
    tmp_path: Path,
) -> None:
    reached = threading.Event()
    data = _bytes(3, 4 * 4096)

    def hold(stream: str, index: int) -> None:
        assert reached.wait(20), "the log behind was never asked for"

    base = _step(PointType.FULL, "1", 0, data[:4096])
    logs = [_step(PointType.LOG, "1", at, data[at : at + 4096]) for at in (4096, 8192, 12288)]
    assert isinstance(base.source, MemorySource)
    assert isinstance(logs[-1].source, MemorySource)
    base.source.before_read = hold
    logs[-1].source.before_read = lambda stream, index: reached.set()
    chain = _chain(base, *logs)
    with FrameReader(NEVER) as frames:
        assert b"".join(chain.read(frames, 0, 4096)) == data[:4096]
