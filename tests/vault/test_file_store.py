"""What only a store on a file system can get wrong."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sqlbak.errors import (
    AccessDenied,
    ObjectKeyInvalid,
    ObjectNotFound,
    PreconditionFailed,
    StoreFull,
    StoreUnreachable,
    VaultError,
    VaultUnusable,
)
from sqlbak.vault import file_places
from sqlbak.vault.file_errors import store_error
from sqlbak.vault.file_places import FilePlaces
from sqlbak.vault.file_store import FileStore
from sqlbak.vault.file_writer import FileWriter


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "vault"


@pytest.fixture
def store(root: Path) -> FileStore:
    return FileStore(root)


def far_future() -> datetime:
    return datetime.now(UTC) + timedelta(days=1)


class TestPlace:
    def test_objects_are_plain_files(self, store: FileStore, root: Path) -> None:
        store.put("items/a/item.json", b"{}")
        assert (root / "items/a/item.json").read_bytes() == b"{}"

    def test_nobody_else_can_read_them(self, store: FileStore, root: Path) -> None:
        store.put("items/a/item.json", b"{}")
        store.put("items/a/item.json", b"{}", if_absent=False)
        for path in [root, *root.rglob("*")]:
            mode = stat.S_IMODE(path.stat().st_mode)
            assert mode == (0o700 if path.is_dir() else 0o600), path

    def test_looking_makes_nothing(self, store: FileStore, root: Path) -> None:
        assert list(store.list("")) == []
        store.delete(["k"])
        store.sweep_unfinished("", older_than=far_future())
        with pytest.raises(ObjectNotFound):
            store.get("k")
        with pytest.raises(PreconditionFailed):
            store.delete_if("k", if_match="x")
        assert not root.exists()

    def test_a_missing_parent_is_no_vault_to_be_made(self, tmp_path: Path) -> None:
        store = FileStore(tmp_path / "mount/that/is/not/there")
        with pytest.raises(VaultUnusable, match=r"no directory .*/mount/that/is/not "):
            store.put("k", b"")
        assert not (tmp_path / "mount").exists()

    def test_a_file_is_no_vault(self, root: Path) -> None:
        root.write_bytes(b"")
        with pytest.raises(VaultUnusable, match="not a directory"):
            FileStore(root).put("k", b"")

    def test_empty_folders_are_pruned(self, store: FileStore, root: Path) -> None:
        store.put("a/b/c", b"")
        store.put("a/d", b"")
        store.delete(["a/b/c"])
        assert sorted(path.name for path in (root / "a").iterdir()) == ["d"]
        store.delete_if("a/d", if_match=store.head("a/d").etag)
        assert [path.name for path in root.iterdir()] == [".sqlbak"]

    def test_hidden_files_of_others_are_not_listed(self, store: FileStore, root: Path) -> None:
        store.put("a/b", b"")
        (root / "a/.nfs0001").write_bytes(b"")
        (root / ".snapshot").mkdir()
        assert [info.key for info in store.list("")] == ["a/b"]

    def test_one_key_cannot_continue_another(self, store: FileStore) -> None:
        store.put("a", b"")
        store.put("b/c", b"")
        with pytest.raises(ObjectKeyInvalid):
            store.put("a/x", b"")
        with pytest.raises(ObjectKeyInvalid):
            store.put("b", b"")
        with pytest.raises(ObjectKeyInvalid):
            store.put("b", b"", if_absent=False)
        assert [info.key for info in store.list("")] == ["a", "b/c"]

    def test_a_link_that_is_reported_lost_but_was_made_counts(
        self, store: FileStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        link = Path.hardlink_to

        def link_twice(self: Path, target: Path) -> None:
            link(self, target)
            link(self, target)

        monkeypatch.setattr(Path, "hardlink_to", link_twice)
        store.put("k", b"x")
        assert store.get("k") == b"x"

    def test_it_works_without_hard_links(
        self, store: FileStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(self: Path, target: Path) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(Path, "hardlink_to", refuse)
        store.put("k", b"one")
        with pytest.raises(PreconditionFailed):
            store.put("k", b"two")
        assert store.get("k") == b"one"
        assert store.sweep_unfinished("", older_than=far_future()) == 0


class TestTags:
    def test_coarse_file_times_do_not_hide_a_replacement(
        self, store: FileStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        utime = os.utime

        def whole_seconds(file: int, *, ns: tuple[int, int]) -> None:
            whole = [time_ns // 1_000_000_000 * 1_000_000_000 for time_ns in ns]
            utime(file, ns=(whole[0], whole[1]))

        monkeypatch.setattr(os, "utime", whole_seconds)
        etag = store.put("lease", b"0").etag
        seen = {etag}
        for number in range(1, 5):
            etag = store.replace("lease", b"%d" % number, if_match=etag).etag
            seen.add(etag)
        assert len(seen) == 5

    def test_objects_made_within_one_tick_of_the_clock_differ(
        self, store: FileStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write, now_ns = os.write, time.time_ns()

        def write_within_the_tick(descriptor: int, data: memoryview) -> int:
            count = write(descriptor, data)
            os.utime(descriptor, ns=(now_ns, now_ns))
            return count

        monkeypatch.setattr(os, "write", write_within_the_tick)
        seen = set()
        for _ in range(30):
            seen.add(store.put("lease", b"x").etag)
            store.delete(["lease"])
        assert len(seen) == 30

    def test_nobody_replaces_between_the_look_and_the_deed(
        self, store: FileStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        etag = store.put("lease", b"free").etag
        looked, go_on = threading.Event(), threading.Event()
        stamp_after = FileWriter._stamp_after

        def pause(self: FileWriter, before: os.stat_result) -> None:
            if threading.current_thread().name == "slow":
                looked.set()
                go_on.wait()
            stamp_after(self, before)

        monkeypatch.setattr(FileWriter, "_stamp_after", pause)
        won: list[str] = []

        def replace() -> None:
            name = threading.current_thread().name
            with suppress(PreconditionFailed):
                store.replace("lease", name.encode(), if_match=etag)
                won.append(name)

        slow = threading.Thread(target=replace, name="slow")
        fast = threading.Thread(target=replace, name="fast")
        slow.start()
        looked.wait()
        fast.start()
        fast.join(0.3)
        go_on.set()
        slow.join()
        fast.join()
        assert won == ["slow"]
        assert store.get("lease") == b"slow"

    def test_no_object_is_from_the_future(self, store: FileStore) -> None:
        for number in range(5):
            assert store.put(f"k{number}", b"").modified_at <= datetime.now(UTC)


class TestErrors:
    @pytest.mark.parametrize(
        ("number", "kind"),
        [
            (errno.ENOSPC, StoreFull),
            (errno.EDQUOT, StoreFull),
            (errno.EACCES, AccessDenied),
            (errno.EPERM, AccessDenied),
            (errno.EROFS, AccessDenied),
            (errno.EIO, StoreUnreachable),
            (errno.ESTALE, StoreUnreachable),
            (errno.ENOTCONN, StoreUnreachable),
            (errno.ENOENT, ObjectNotFound),
            (errno.ENAMETOOLONG, ObjectKeyInvalid),
            (errno.ENOTDIR, ObjectKeyInvalid),
        ],
    )
    def test_each_has_one_meaning(self, number: int, kind: type[VaultError]) -> None:
        error = store_error(OSError(number, os.strerror(number)), "write", "k", Path("/srv"))
        assert type(error) is kind
        assert "k" in str(error)

    @pytest.mark.parametrize(
        ("number", "kind"), [(errno.ENOSPC, StoreFull), (errno.EIO, StoreUnreachable)]
    )
    def test_a_disk_that_fails_while_writing_leaves_nothing(
        self,
        store: FileStore,
        root: Path,
        monkeypatch: pytest.MonkeyPatch,
        number: int,
        kind: type[VaultError],
    ) -> None:
        def fail(*_: object) -> int:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "write", fail)
        with pytest.raises(kind, match=f"cannot write items/a in {root}"):
            store.put("items/a", b"x")
        monkeypatch.undo()
        assert list(store.list("")) == []
        assert not [path for path in root.rglob("*") if path.is_file()]

    def test_a_disk_that_fails_to_sync_makes_no_object(
        self, store: FileStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(_: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(StoreUnreachable):
            store.put("k", b"x")
        assert list(store.list("")) == []

    def test_bytes_are_synced_before_they_are_visible(
        self, store: FileStore, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        events: list[str] = []
        fsync, link = os.fsync, Path.hardlink_to

        def watched_fsync(descriptor: int) -> None:
            is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            events.append(f"folder {path}" if is_folder else "bytes")
            fsync(descriptor)

        def watched_link(self: Path, target: Path) -> None:
            events.append("link")
            link(self, target)

        monkeypatch.setattr(os, "fsync", watched_fsync)
        monkeypatch.setattr(Path, "hardlink_to", watched_link)
        store.put("a/b", b"x")
        folders = [root / "a", root, root.parent]
        assert events == ["bytes", "link", *(f"folder {folder}" for folder in folders)]


class TestSweep:
    def test_a_living_writer_is_left_alone_however_old(self, store: FileStore) -> None:
        with store.writer("items/a/data") as writer:
            writer.write(b"x")
            assert store.sweep_unfinished("", older_than=far_future()) == 0
            writer.commit()
        assert store.get("items/a/data") == b"x"

    def test_a_crash_between_link_and_unlink_keeps_the_object(self, store: FileStore) -> None:
        store.put("a/k", b"x")
        places = FilePlaces(Path(store.url.removeprefix("file://")))
        descriptor, temporary = places.create_unfinished("a/k")
        os.close(descriptor)
        temporary.unlink()
        temporary.hardlink_to(places.object_path("a/k"))
        assert store.sweep_unfinished("a/", older_than=far_future()) == 1
        assert store.get("a/k") == b"x"


def _create(root: Path, rounds: int, me: int, won: multiprocessing.Queue[tuple[int, int]]) -> None:
    store = FileStore(root)
    for number in range(rounds):
        try:
            store.put(f"race/{number}/x", b"%d" % me)
        except PreconditionFailed:
            continue
        won.put((number, me))


def _count_up(root: Path, times: int) -> None:
    store = FileStore(root)
    done = 0
    while done < times:
        etag = store.head("counter").etag
        value = int(store.get("counter"))
        try:
            store.replace("counter", b"%d" % (value + 1), if_match=etag)
        except PreconditionFailed:
            continue
        done += 1


def _churn(root: Path, me: int, times: int) -> None:
    store = FileStore(root)
    for number in range(times):
        key = f"a/b/c/{me}-{number}"
        store.put(key, b"")
        store.delete([key])


def run_processes(target: Callable[..., None], arguments: list[tuple[object, ...]]) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=target, args=one) for one in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(processes)


class TestProcesses:
    def test_one_of_several_processes_creates_an_object(self, root: Path) -> None:
        won = multiprocessing.get_context("spawn").Queue()
        run_processes(_create, [(root, 30, me, won) for me in range(3)])
        winners = dict(won.get(timeout=10) for _ in range(30))
        assert won.empty()
        store = FileStore(root)
        assert {number: int(store.get(f"race/{number}/x")) for number in range(30)} == winners

    def test_no_replacement_among_processes_is_lost(self, root: Path) -> None:
        store = FileStore(root)
        store.put("counter", b"0")
        run_processes(_count_up, [(root, 40)] * 3)
        assert store.get("counter") == b"120"

    def test_pruning_never_hurts_a_writer_of_the_same_folder(self, root: Path) -> None:
        run_processes(_churn, [(root, me, 60) for me in range(3)])
        assert list(FileStore(root).list("")) == []
        assert [path.name for path in root.iterdir()] == [".sqlbak"]


WRITE_FOR_EVER = """
import os, sys
from pathlib import Path
from sqlbak.vault.file_store import FileStore
store = FileStore(Path(sys.argv[1]))
print("writing", flush=True)
number = 0
while True:
    number += 1
    with store.writer(f"items/a/data/{sys.argv[2]}-{number:06}") as writer:
        for _ in range(40):
            writer.write(os.urandom(1) * 50_000)
        writer.commit()
    store.put(f"items/a/points/{sys.argv[2]}-{number:06}.json", b"manifest" * 100)
"""


def test_kill_9_leaves_whole_objects_and_what_the_sweep_removes(root: Path) -> None:
    store = FileStore(root)
    for number in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITE_FOR_EVER, str(root), str(number)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        time.sleep(0.05 + 0.03 * number)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    found = list(store.list(""))
    assert found
    for info in found:
        data = store.get(info.key)
        if "/data/" in info.key:
            assert len(data) == 40 * 50_000
        else:
            assert data == b"manifest" * 100
    removed = store.sweep_unfinished("items/a/", older_than=far_future())
    assert removed <= 6
    assert not list((root / ".sqlbak/unfinished").rglob("*"))
    assert [info.key for info in store.list("")] == [info.key for info in found]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_folder_of_somebody_else_is_access_denied(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path\n"
        "from sqlbak.errors import AccessDenied\n"
        "from sqlbak.vault.file_store import FileStore\n"
        "os.chdir('/'); os.setuid(65534)\n"
        "s = FileStore(Path(sys.argv[1]))\n"
        "for act in (lambda: s.put('k', b''), lambda: s.get('k'), lambda: list(s.list('')),\n"
        "            lambda: s.delete(['k']), lambda: s.delete_if('k', if_match='x')):\n"
        "    try: act()\n"
        "    except AccessDenied as error: print(error.hint)\n"
    )
    store = FileStore(tmp_path / "vault")
    store.put("k", b"")
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "vault")],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.count("must own the vault's directory") == 5


def test_a_process_that_is_stopped_with_the_lock_in_its_hand_is_told_of_and_not_waited_for_for_ever(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileStore(root)
    etag = store.put("a", b"1").etag
    etag = store.replace("a", b"1+", if_match=etag).etag  # makes the file of the lock
    monkeypatch.setattr(file_places, "LOCK_SECONDS", 0.1)
    with FilePlaces(root).lock_file.open("r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StoreUnreachable, match="lock"):
            store.replace("a", b"2", if_match=etag)
    store.replace("a", b"2", if_match=etag)
    assert store.get("a") == b"2"
