"""Payload reaches the server through a folder, a little ahead of it, and nothing stays there."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import pytest

from sqlbak.engines.port import RestoreStep
from sqlbak.engines.sqlserver import restoring_delivery
from sqlbak.engines.sqlserver.delivery import DiskFolder
from sqlbak.engines.sqlserver.restoring_delivery import PieceSpool, is_by_url, url_devices
from sqlbak.errors import Interrupted, ObjectDamaged, TargetNotUsable
from sqlbak.model import PointType
from sqlbak.stopping import NEVER, StopSignal
from tests.engines.sqlserver.making import Payload, full_and_logs, step


def folder(path: Path, server: str = "/srv/b") -> DiskFolder:
    return DiskFolder(server, path, "restore")


def sized(count: int, size: int) -> list[RestoreStep]:
    made = []
    for number in range(count):
        each = step(number, PointType.LOG, number, number + 1)
        payload = Payload({"media-1": bytes([number]) * size}, frame_bytes=1000)
        made.append(RestoreStep(each.point, each.facts, payload))
    return made


def test_pieces_come_in_order_byte_for_byte_and_are_gone_afterwards(tmp_path: Path) -> None:
    steps = [step(0, PointType.FULL, 1, 2, streams=3), *full_and_logs(3)[1:]]
    with PieceSpool(folder(tmp_path), steps, target="erp/x", stop=NEVER) as spool:
        for each in steps:
            devices = spool.take()
            assert len(devices) == len(each.facts["streams"])
            for device, stream in zip(devices, each.facts["streams"], strict=True):
                assert device.name.startswith("/srv/b/sqlbak-restore-")
                local = tmp_path / device.name.removeprefix("/srv/b/")
                assert local.read_bytes() == each.source._streams[stream]
                assert local.stat().st_mode & 0o007 == 0, "a backup is not for everybody's eyes"
            spool.done()
    assert list(tmp_path.iterdir()) == []


def test_windows_paths_are_windows_paths(tmp_path: Path) -> None:
    share = folder(tmp_path, "\\\\nas\\backup")
    with PieceSpool(share, full_and_logs(0), target="erp/x", stop=NEVER) as spool:
        assert spool.take()[0].name.startswith("\\\\nas\\backup\\sqlbak-restore-")


def test_no_more_lies_in_the_folder_than_it_was_found_to_have_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring_delivery, "_SLACK_BYTES", 0)
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: real._replace(free=25_000))
    most = 0
    with PieceSpool(folder(tmp_path), sized(8, 10_000), target="erp/x", stop=NEVER) as spool:
        for _ in range(8):
            spool.take()
            time.sleep(0.02)
            most = max(most, sum(path.stat().st_size for path in tmp_path.glob("*.bak")))
            spool.done()
    assert 10_000 <= most <= 20_000


def test_a_piece_that_has_no_room_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring_delivery, "_SLACK_BYTES", 0)
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: real._replace(free=9_999))
    spool = PieceSpool(folder(tmp_path), sized(1, 10_000), target="erp/x", stop=NEVER)
    with pytest.raises(TargetNotUsable, match="9999 bytes free"):
        spool.check()


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    spool = PieceSpool(folder(tmp_path / "no"), sized(1, 1), target="erp/x", stop=NEVER)
    with pytest.raises(TargetNotUsable, match="cannot be put into"):
        spool.check()


def test_a_second_restore_of_the_same_database_waits_for_the_first(tmp_path: Path) -> None:
    first = PieceSpool(folder(tmp_path), sized(1, 1), target="erp/x", stop=NEVER)
    second = PieceSpool(folder(tmp_path), sized(1, 1), target="erp/x", stop=NEVER)
    other = PieceSpool(folder(tmp_path), sized(1, 1), target="erp/y", stop=NEVER)
    with first:
        with pytest.raises(TargetNotUsable, match="another sqlbak restores"), second:
            pass
        with other:
            other.take()
        first.take()


def test_damage_in_the_vault_is_raised_where_the_piece_is_needed(tmp_path: Path) -> None:
    steps = sized(2, 5_000)

    def damaged(stream: str, index: int) -> bytes:
        raise ObjectDamaged("frame 0 is damaged")

    steps[1].source.read_frame = damaged  # type: ignore[method-assign]
    with (
        pytest.raises(ObjectDamaged),
        PieceSpool(folder(tmp_path), steps, target="erp/x", stop=NEVER) as spool,
    ):
        spool.take()
        spool.done()
        spool.take()
    assert list(tmp_path.iterdir()) == []


def test_a_stop_ends_the_wait_and_every_thread(tmp_path: Path) -> None:
    stop = StopSignal()
    steps = sized(1, 5_000)
    hold = threading.Event()

    def slow(stream: str, index: int) -> bytes:
        hold.wait(20)
        return bytes(1000)

    steps[0].source.read_frame = slow  # type: ignore[method-assign]
    threading.Timer(0.2, lambda: (stop.request(), hold.set())).start()
    with (
        pytest.raises(Interrupted),
        PieceSpool(folder(tmp_path), steps, target="erp/x", stop=stop) as spool,
    ):
        spool.take()
    assert not [t for t in threading.enumerate() if t.name.startswith("sqlbak-restore")]
    assert list(tmp_path.iterdir()) == []


def test_what_lies_where_the_server_reads_it_is_not_fetched(tmp_path: Path) -> None:
    each = step(0, PointType.FULL, 1, 2)
    facts = {**each.facts, "delivery": "url", "urls": ["s3://h/b/x.1", "s3://h/b/x.2"]}
    steps = [RestoreStep(each.point, facts, Payload({})), *sized(1, 10)]
    assert is_by_url(steps[0])
    with PieceSpool(folder(tmp_path), steps, target="erp/x", stop=NEVER) as spool:
        assert [device.kind.value for device in spool.take()] == ["URL", "URL"]
        spool.done()
        assert [device.kind.value for device in spool.take()] == ["DISK"]
    assert [device.name for device in url_devices(steps[0])] == facts["urls"]
