"""Restoring into the directory of an older state: the result is that of a fresh restore, byte for
byte, and only what differs is fetched."""

from __future__ import annotations

import os
import random
import shutil
import signal
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from sqlbak.engines.port import RestoreOutcome, RestoreStep
from sqlbak.engines.postgres import restoring
from sqlbak.engines.postgres.claiming import CLAIM
from sqlbak.errors import ObjectDamaged, TargetNotUsable, UsageError
from sqlbak.model import DifferentialMethod
from tests.engines.postgres.clusters import (
    Cluster,
    available_majors,
    give_to_server_user,
    has_working_program,
    run_as_server_user,
    running_cluster,
    scratch_directory,
)
from tests.engines.postgres.restores import MemorySource, Recorder, restore

pytestmark = pytest.mark.postgres

_FRAME = 64 << 10


@dataclass
class Recorded:
    """A cluster with a tablespace; a full, then changes to a hundredth of its pages (and new and
    dropped tables), then a differential of each method, and a second full."""

    cluster: Cluster
    space: Path
    full: RestoreStep
    differentials: list[RestoreStep]
    later: RestoreStep
    changed_rows: tuple[Any, ...]


def _framed(step: RestoreStep) -> RestoreStep:
    """The same with small frames, as a small cluster needs to be told from a large one."""
    assert isinstance(step.source, MemorySource)
    return RestoreStep(step.point, step.facts, MemorySource(step.source.contents, _FRAME))


@pytest.fixture(scope="module")
def recorded() -> Iterator[Recorded]:
    major = available_majors()[-1]
    settings = {"summarize_wal": "on"} if major >= 17 else {}
    with running_cluster(major, wal_segment_megabytes=1, settings=settings) as cluster:
        recorder = Recorder(cluster)
        recorder.prepare()
        space = cluster.make_directory("space")
        cluster.execute(f"CREATE TABLESPACE space LOCATION '{space}'")
        cluster.execute("CREATE TABLE aside TABLESPACE space AS SELECT generate_series(1, 9000) n")
        cluster.execute("CREATE TABLE goes AS SELECT generate_series(1, 9000) n")
        cluster.run(
            "pgbench", "-i", "-q", "-s", "1", "-h", cluster.home, "-p", str(cluster.port),
            *("-U", "postgres", "postgres"),
        )  # fmt: skip
        cluster.execute("CHECKPOINT")
        full = _framed(recorder.full())
        # A hundredth of the accounts, side by side, as the newest rows of most databases are.
        script = cluster.home / "script.sql"
        script.write_text(
            "\\set aid random(1, 1000)\n"
            "UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;\n"
        )
        cluster.run(
            "pgbench", "-n", "-t", "500", "-f", script, "-h", cluster.home,
            *("-p", str(cluster.port), "-U", "postgres", "postgres"),
        )  # fmt: skip
        cluster.execute("DROP TABLE goes")
        cluster.execute("CREATE TABLE comes AS SELECT generate_series(1, 9000) n")
        cluster.execute("UPDATE aside SET n = 0 WHERE n = 1")
        cluster.execute("CHECKPOINT")
        methods = [DifferentialMethod.PAGES]
        if major >= 17:
            methods.append(DifferentialMethod.NATIVE)
        differentials = [_framed(recorder.differential(full, method)) for method in methods]
        later = _framed(recorder.full())
        (rows,) = cluster.execute("SELECT count(*), sum(abalance) FROM pgbench_accounts")
        yield Recorded(cluster, space, full, differentials, later, rows)


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place for restores, which are not flushed to the disk: nothing here is about that."""
    monkeypatch.setattr(restoring, "make_durable", lambda place, stop: None)
    with scratch_directory() as path:
        yield path


def _tree(directory: Path) -> dict[str, tuple[Any, ...]]:
    """Everything below: kind, permissions, owner, and content or target."""
    found: dict[str, tuple[Any, ...]] = {}
    for folder, folders, files in os.walk(directory):
        for name in (*folders, *files):
            path = Path(folder) / name
            status = path.lstat()
            content: Any = None
            if stat.S_ISLNK(status.st_mode):
                content = str(path.readlink()).replace(str(directory), "")
            elif stat.S_ISREG(status.st_mode):
                content = path.read_bytes().replace(os.fsencode(directory), b"")
            kind = (stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode), status.st_uid)
            found[str(path.relative_to(directory))] = (*kind, content)
    return found


def _assert_same(one: Path, other: Path) -> None:
    left, right = _tree(one), _tree(other)
    manifests = [tree.pop("backup_manifest", None) for tree in (left, right)]
    if manifests[0] != manifests[1]:  # it has the hash of tablespace_map, which names places
        assert b"sqlbak_tablespaces" in left["tablespace_map"][-1]
    assert left.keys() == right.keys()
    assert [path for path in left if left[path] != right[path]] == []


def _size(step: RestoreStep) -> int:
    return sum(step.source.size(n) for n in step.source.streams() if n.endswith(".tar"))


def _reused(outcome: RestoreOutcome) -> dict[str, Any]:
    found: dict[str, Any] = outcome.facts["reused"]
    return found


def _copied(directory: Path, name: str) -> Path:
    """A copy with its owners and permissions; its tablespaces lie inside."""
    copy = directory.with_name(name)
    shutil.copytree(directory, copy, symlinks=True)
    for link in (copy / "pg_tblspc").iterdir():
        inside = link.readlink().relative_to(directory)
        link.unlink()
        link.symlink_to(copy / inside)
    give_to_server_user(copy)
    return copy


def test_a_second_restore_fetches_what_differs_and_equals_a_fresh_one(
    recorded: Recorded, home: Path
) -> None:
    fresh = restore([recorded.later], home / "fresh")
    restore([recorded.full], home / "data")
    outcome = restore([recorded.later], home / "data", reuses=True)
    _assert_same(home / "data", fresh.directory)
    reused = _reused(outcome)
    whole = _size(recorded.later)
    assert reused["fetched_bytes"] < whole / 8
    assert reused["kept_bytes"] > whole * 0.9
    assert reused["note"] is None
    if has_working_program(recorded.cluster.major, "pg_verifybackup"):
        ignored = ("--ignore=sqlbak_tablespaces", "--ignore=tablespace_map")
        said = recorded.cluster.run("pg_verifybackup", *ignored, outcome.directory)
        assert "successfully verified" in said
    again = _reused(restore([recorded.later], home / "data", reuses=True))
    assert again["fetched_bytes"] < reused["fetched_bytes"]
    _assert_same(home / "data", fresh.directory)


def test_a_differential_is_laid_over_what_is_kept_of_its_full(
    recorded: Recorded, home: Path
) -> None:
    restore([recorded.full], home / "old")
    for number, differential in enumerate(recorded.differentials):
        steps = [recorded.full, differential]
        fresh = restore(steps, home / f"fresh-{number}")
        outcome = restore(steps, _copied(home / "old", f"data-{number}"), reuses=True)
        _assert_same(outcome.directory, fresh.directory)
        beside = _reused(outcome)["fetched_bytes"] - _size(differential)
        assert beside < _size(recorded.full) / 20
        # And from a later state back to an earlier one.
        fresh = restore([recorded.full], home / f"fresh-full-{number}")
        back = restore([recorded.full], outcome.directory, reuses=True)
        _assert_same(back.directory, fresh.directory)
        assert _reused(back)["fetched_bytes"] < _size(recorded.full) / 5


def test_a_server_that_ran_on_is_put_back_and_started(recorded: Recorded, home: Path) -> None:
    first = restore([recorded.full], home / "data", start=True)
    assert first.connection is not None
    with psycopg.connect(first.connection, autocommit=True) as connection:
        connection.execute("UPDATE pgbench_accounts SET abalance = -7 WHERE aid BETWEEN 1 AND 500")
        connection.execute("CREATE TABLE not_in_any_backup AS SELECT 1 AS n")
    with pytest.raises(TargetNotUsable, match=r"postmaster\.pid"):
        restore([recorded.later], home / "data", start=True, reuses=True)
    _stop(recorded.cluster, home / "data")
    outcome = restore([recorded.later], home / "data", start=True, reuses=True)
    assert outcome.proven
    assert outcome.connection is not None
    with psycopg.connect(outcome.connection, autocommit=True) as connection:
        rows = connection.execute("SELECT count(*), sum(abalance) FROM pgbench_accounts")
        assert rows.fetchone() == recorded.changed_rows
        found = connection.execute("SELECT to_regclass('not_in_any_backup'), to_regclass('comes')")
        assert found.fetchone() == (None, "comes")
    _stop(recorded.cluster, home / "data")
    run_as_server_user([recorded.cluster.programs / "pg_checksums", "-c", "-D", home / "data"])
    assert _reused(outcome)["fetched_bytes"] < _size(recorded.later) / 4


def _stop(cluster: Cluster, directory: Path) -> None:
    run_as_server_user([cluster.programs / "pg_ctl", "stop", "-m", "fast", "-D", directory])


def _damages(chance: random.Random, outside: Path) -> dict[str, Callable[[Path], None]]:
    """What can have happened to a file."""

    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        for _ in range(3):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)

    def replace(path: Path, make: Callable[[Path], None]) -> None:
        path.unlink()
        make(path)

    def other_name(path: Path) -> None:
        flip(path)
        (outside / f"{path.parent.name}-{path.name}").hardlink_to(path)

    return {
        "flipped": flip,
        "truncated": lambda path: os.truncate(path, chance.randrange(path.stat().st_size)),
        "longer": lambda path: path.write_bytes(path.read_bytes() + bytes(8192)),
        "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
        "missing": lambda path: path.unlink(),
        "a link": lambda path: replace(path, lambda p: p.symlink_to("/etc/passwd")),
        "a dangling link": lambda path: replace(path, lambda p: p.symlink_to("/nowhere/at/all")),
        "a directory": lambda path: replace(path, lambda p: (p / "in" / "it").mkdir(parents=True)),
        "a pipe": lambda path: replace(path, os.mkfifo),
        "open to all": lambda path: path.chmod(0o666),
        "closed to all": lambda path: path.chmod(0),
        "extra": lambda path: (path.with_name(f"{path.name}.1") / "x").mkdir(parents=True),
        "another's": lambda path: os.chown(path, os.geteuid(), os.getegid()),
        "hard-linked": other_name,
    }


def _heal(recorded: Recorded, home: Path, chance: random.Random, *, times: int) -> None:
    steps = (
        [recorded.full, recorded.differentials[0]] if chance.random() < 0.5 else [recorded.later]
    )
    fresh = restore(steps, home / "fresh")
    restore([chance.choice([recorded.full, recorded.later])], home / "data")
    outside = home / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    kinds = _damages(chance, outside)
    files = [
        path
        for path in sorted((home / "data").rglob("*"))
        if path.is_file() and path.stat().st_size and path.name != "pg_control"
    ]
    largest = max(files, key=lambda path: path.stat().st_size)
    kinds["hard-linked"](largest)
    done = []
    for path in chance.sample([path for path in files if path != largest], times):
        done.append((chance.choice([*kinds]), path))
        kinds[done[-1][0]](path)
    # A folder that is a link to another place, with the right files there.
    moved = home / "data" / "base" / "1"
    shutil.move(moved, outside / "moved")
    moved.symlink_to(outside / "moved")
    before = _tree(outside)
    outcome = restore(steps, home / "data", reuses=True)
    try:
        _assert_same(outcome.directory, fresh.directory)
    except AssertionError as problem:
        raise AssertionError(done) from problem
    assert _tree(outside) == before


def test_whatever_happened_to_the_old_files_is_healed(recorded: Recorded, home: Path) -> None:
    _heal(recorded, home, random.Random(), times=60)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(40))
def test_whatever_happened_is_healed_many_times(recorded: Recorded, home: Path, seed: int) -> None:
    _heal(recorded, home, random.Random(seed), times=random.Random(seed).randrange(1, 300))


def _killed_while(home: Path, steps: list[RestoreStep], at_frame: int) -> None:
    """Restore into home/data in a child that is killed when it fetches its n-th frame."""
    frames = iter(range(1, 1 << 30))

    def die(stream: str, index: int) -> None:
        if next(frames) >= at_frame:
            os.kill(os.getpid(), signal.SIGKILL)

    dying = [
        RestoreStep(step.point, step.facts, MemorySource(step.source.contents, _FRAME, die))  # type: ignore[attr-defined]
        for step in steps
    ]
    child = os.fork()
    if child == 0:
        try:
            restore(dying, home / "data", reuses=True)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 1


def _kill_and_go_on(recorded: Recorded, home: Path, chance: random.Random) -> None:
    restore([recorded.full], home / "data")
    steps = chance.choice([[recorded.later], [recorded.full, recorded.differentials[0]]])
    for at_frame in sorted(chance.sample(range(2, 60), 2)):
        _killed_while(home, steps, at_frame)
        is_rewritten = (home / "data" / CLAIM).exists()
        assert (home / "data" / "global" / "pg_control").exists() != is_rewritten
        if is_rewritten:
            command = [recorded.cluster.programs / "pg_ctl", "start", "-w", "-D", home / "data"]
            assert run_as_server_user(command, check=False).returncode != 0
            with pytest.raises(TargetNotUsable, match="not empty"):
                restore(steps, home / "data")
    outcome = restore(steps, home / "data", reuses=True)
    fresh = restore(steps, home / "fresh")
    _assert_same(outcome.directory, fresh.directory)


def test_a_restore_that_was_killed_leaves_no_database_and_is_gone_on_with(
    recorded: Recorded, home: Path
) -> None:
    _kill_and_go_on(recorded, home, random.Random())


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(30))
def test_killed_again_and_again(recorded: Recorded, home: Path, seed: int) -> None:
    _kill_and_go_on(recorded, home, random.Random(seed))


def test_a_fresh_restore_that_was_killed_can_be_gone_on_with(
    recorded: Recorded, home: Path
) -> None:
    reached = home / "reached"

    def hang(stream: str, index: int) -> None:
        if stream == "base.tar" and index == 100:
            reached.touch()
            time.sleep(3600)

    assert isinstance(recorded.full.source, MemorySource)
    source = MemorySource(recorded.full.source.contents, _FRAME, hang)
    hanging = RestoreStep(recorded.full.point, recorded.full.facts, source)
    child = os.fork()
    if child == 0:
        try:
            restore([hanging], home / "data")
        finally:
            os._exit(1)
    try:
        while not reached.exists():
            time.sleep(0.01)
        with pytest.raises(TargetNotUsable, match="another restore is at work"):
            restore([recorded.full], home / "data", reuses=True)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert not (home / "data" / "global" / "pg_control").exists()
    outcome = restore([recorded.full], home / "data", reuses=True)
    assert _reused(outcome)["kept_bytes"] > 0
    _assert_same(outcome.directory, restore([recorded.full], home / "fresh").directory)


def test_what_is_not_this_cluster_is_refused_and_left_as_it_is(
    recorded: Recorded, home: Path
) -> None:
    for name in ("empty", "other", "strange", "folder"):
        (home / name / "global").mkdir(parents=True)
    (home / "folder" / "global" / "pg_control").mkdir()
    (home / "other" / "global" / "pg_control").write_bytes(bytes(8192))
    (home / "strange" / "precious").write_text("x")
    (home / "link").symlink_to(home / "other")
    before = _tree(home)
    for name, said in (
        ("empty", "no cluster"),
        ("absent", "no cluster"),
        ("folder", "no cluster"),
        ("other", "another cluster"),
        ("strange", "no cluster"),
        ("link", "symbolic link"),
    ):
        with pytest.raises(TargetNotUsable, match=said):
            restore([recorded.full], home / name, reuses=True)
    with pytest.raises(UsageError):
        restore([recorded.full], home / "other", reuses=True, replaces=True)
    assert _tree(home) == before


def test_a_tablespace_of_its_own_is_kept_where_it_is(recorded: Recorded, home: Path) -> None:
    moved = {str(recorded.space): home / "space"}
    restore([recorded.full], home / "data", tablespaces=moved)
    (home / "space" / "PG_another_version").mkdir()
    (next((home / "space").glob("PG_1*")) / "extra").touch()
    outcome = restore([recorded.later], home / "data", tablespaces=moved, reuses=True)
    restore([recorded.later], home / "fresh", tablespaces={str(recorded.space): home / "anew"})
    (home / "space" / "PG_another_version").rmdir()  # another cluster's: not ours to remove
    _assert_same(home / "space", home / "anew")
    assert _reused(outcome)["fetched_bytes"] < _size(recorded.later) / 8
    (home / "strange").mkdir()
    (home / "strange" / "precious").touch()
    strange = {str(recorded.space): home / "strange"}
    with pytest.raises(TargetNotUsable, match="holds precious"):
        restore([recorded.full], home / "data", tablespaces=strange, reuses=True)


def test_a_full_without_hashes_is_fetched_whole_and_that_is_said(
    recorded: Recorded, home: Path
) -> None:
    assert isinstance(recorded.full.source, MemorySource)
    missing = random.choice(["pages", "pages.index", "archives.index"])
    streams = {n: c for n, c in recorded.full.source.contents.items() if n != missing}
    older = RestoreStep(recorded.full.point, recorded.full.facts, MemorySource(streams))
    restore([recorded.later], home / "data")
    outcome = restore([older], home / "data", reuses=True)
    assert "everything was fetched" in _reused(outcome)["note"]
    assert _reused(outcome)["kept_bytes"] == 0
    assert any("everything was fetched" in step for step in outcome.next_steps)
    _assert_same(outcome.directory, restore([recorded.full], home / "fresh").directory)


def test_a_failure_in_the_middle_says_how_to_go_on(recorded: Recorded, home: Path) -> None:
    restore([recorded.full], home / "data")
    damaged = _framed(recorded.later)
    assert isinstance(damaged.source, MemorySource)
    damaged.source.frames["base.tar"][-1][7] ^= 0x10
    with pytest.raises(ObjectDamaged) as failed:
        restore([damaged], home / "data", reuses=True)
    assert "goes on from here" in failed.value.hint
    assert not (home / "data" / "global" / "pg_control").exists()
    outcome = restore([recorded.later], home / "data", reuses=True)
    _assert_same(outcome.directory, restore([recorded.later], home / "fresh").directory)


@pytest.mark.parametrize("who", ["a server", "a server that ended", "a restore"])
def test_whoever_works_there_while_it_is_compared_is_not_disturbed(
    recorded: Recorded, home: Path, who: str
) -> None:
    data = home / "data"
    restore([recorded.full], data)
    seen: list[dict[str, tuple[Any, ...]]] = []

    def meanwhile(stream: str, index: int) -> None:
        if stream != "pages" or seen:
            return
        seen.append({})
        if who == "a server":
            (data / "postmaster.pid").touch()
        elif who == "a restore":
            restore([recorded.full], data, reuses=True)
        else:
            control = data / "global" / "pg_control"
            control.write_bytes(control.read_bytes())
        seen[0] = _tree(data)

    assert isinstance(recorded.later.source, MemorySource)
    source = MemorySource(recorded.later.source.contents, _FRAME, meanwhile)
    disturbed = RestoreStep(recorded.later.point, recorded.later.facts, source)
    with pytest.raises(TargetNotUsable, match=r"postmaster\.pid|somebody else worked") as refused:
        restore([disturbed], data, reuses=True)
    assert "no database" not in refused.value.hint
    assert _tree(data) == seen[0]
