"""Restoring over a cluster, which stands aside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sqlbak.engines.postgres.replacing import (
    check_replaceable,
    read_system_identifier,
    set_aside,
)
from sqlbak.errors import ObjectDamaged, RestoreFailed, TargetNotUsable
from tests.engines.postgres.clusters import (
    Cluster,
    available_majors,
    run_as_server_user,
    running_cluster,
    scratch_directory,
)
from tests.engines.postgres.restores import MemorySource, Recorder, restore

_IDENTIFIER = "7658912345678901234"


def _cluster_at(directory: Path) -> Path:
    (directory / "global").mkdir(parents=True)
    (directory / "PG_VERSION").write_text("17\n")
    content = int(_IDENTIFIER).to_bytes(8, "little") + bytes(8184)
    (directory / "global" / "pg_control").write_bytes(content)
    return directory


def test_the_cluster_itself_may_be_replaced(tmp_path: Path) -> None:
    directory = _cluster_at(tmp_path / "data")
    assert read_system_identifier(directory) == _IDENTIFIER
    check_replaceable(directory, system_identifier=_IDENTIFIER)


def test_anything_else_is_refused(tmp_path: Path) -> None:
    directory = _cluster_at(tmp_path / "data")
    with pytest.raises(TargetNotUsable, match="holds another cluster"):
        check_replaceable(directory, system_identifier="1")
    (tmp_path / "link").symlink_to(directory)
    with pytest.raises(TargetNotUsable, match="symbolic link"):
        check_replaceable(tmp_path / "link", system_identifier=_IDENTIFIER)
    (directory / "postmaster.pid").touch()
    with pytest.raises(TargetNotUsable, match=r"postmaster\.pid"):
        check_replaceable(directory, system_identifier=_IDENTIFIER)
    (directory / "postmaster.pid").unlink()
    (directory / "global" / "pg_control").write_bytes(b"short")
    for place in (directory, tmp_path, tmp_path / "absent"):
        with pytest.raises(TargetNotUsable, match="holds no cluster"):
            check_replaceable(place, system_identifier=_IDENTIFIER)


def test_the_old_one_is_kept_beside_the_new_one(tmp_path: Path) -> None:
    directory = _cluster_at(tmp_path / "data")
    with set_aside(directory) as before:
        assert list(directory.iterdir()) == []
        (directory / "new").touch()
    assert before.name.startswith("data.before-")
    assert read_system_identifier(before) == _IDENTIFIER
    assert [path.name for path in directory.iterdir()] == ["new"]


@pytest.mark.parametrize("remains", [True, False])
def test_after_a_failure_the_old_one_is_back_and_the_new_one_kept_for_a_look(
    tmp_path: Path, remains: bool
) -> None:
    directory = _cluster_at(tmp_path / "data")
    with pytest.raises(KeyboardInterrupt), set_aside(directory):
        if remains:
            (directory / "server.log").touch()
        raise KeyboardInterrupt
    assert read_system_identifier(directory) == _IDENTIFIER
    others = [path for path in tmp_path.iterdir() if path != directory]
    assert [path.name.partition("-")[0] for path in others] == ["data.failed"] * remains


def test_an_error_tells_where_what_was_restored_is_kept(tmp_path: Path) -> None:
    directory = _cluster_at(tmp_path / "data")
    with pytest.raises(RestoreFailed) as caught, set_aside(directory):
        (directory / "server.log").touch()
        raise RestoreFailed("no", hint="look")
    (kept,) = tmp_path.glob("data.failed-*")
    assert caught.value.hint == f"look; what was restored is kept in {kept} for a look"


@pytest.fixture
def home() -> Iterator[Path]:
    with scratch_directory() as path:
        yield path


@pytest.mark.postgres
@pytest.mark.parametrize("start", [True, False])
def test_a_cluster_is_put_back_to_an_earlier_state_in_its_own_place(
    home: Path, start: bool
) -> None:
    with running_cluster(available_majors()[-1]) as cluster:
        recorder = Recorder(cluster)
        recorder.prepare()
        recorder.mark(1, 3)
        recorder.full()
        with pytest.raises(TargetNotUsable, match=r"postmaster\.pid"):
            restore(recorder.steps, cluster.data_directory, replaces=True)
        recorder.mark(4, 3)
        assert cluster.execute("SELECT count(*) FROM marks") == [(6,)]
        cluster.stop()
        owner = cluster.data_directory.stat().st_uid
        outcome = restore(recorder.steps, cluster.data_directory, replaces=True, start=start)
        before = Path(outcome.facts["set_aside"])
        assert any(str(before) in step for step in outcome.next_steps)
        assert cluster.data_directory.stat().st_uid == owner
        if start:
            _stop(cluster)
        cluster.start()
        assert cluster.execute("SELECT count(*) FROM marks") == [(3,)]
        cluster.stop()
        old = Cluster(cluster.major, home)
        old.data_directory = before
        old.port = cluster.port
        run_as_server_user([cluster.programs / "pg_checksums", "-c", "-D", before])


def _stop(cluster: Cluster) -> None:
    run_as_server_user(
        [cluster.programs / "pg_ctl", "stop", "-m", "fast", "-D", cluster.data_directory]
    )


@pytest.mark.postgres
def test_when_the_restore_fails_the_cluster_is_as_it_was() -> None:
    with running_cluster(available_majors()[-1]) as cluster:
        recorder = Recorder(cluster)
        recorder.prepare()
        full = recorder.full()
        recorder.mark(1, 3)
        cluster.stop()
        assert isinstance(full.source, MemorySource)
        full.source.frames["base.tar"][-1][7] ^= 0x10
        with pytest.raises(ObjectDamaged):
            restore([full], cluster.data_directory, replaces=True)
        assert [p.name for p in cluster.home.iterdir() if p.name.startswith("data")] == ["data"]
        cluster.start()
        assert cluster.execute("SELECT count(*) FROM marks") == [(3,)]
