"""Restoring clusters that are out of the ordinary."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from sqlbak.engines.port import RestoreOutcome
from sqlbak.engines.postgres.recovery import configuration_block
from sqlbak.engines.postgres.timelines import format_lsn, parse_lsn
from sqlbak.errors import ObjectDamaged, PositionUnreachable, TargetNotUsable, UnknownName
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

_TRACKED = {"track_commit_timestamp": "on"}


@pytest.fixture
def home() -> Iterator[Path]:
    with scratch_directory() as path:
        yield path


@pytest.fixture(params=available_majors(), ids=lambda major: f"pg{major}")
def major(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


def _rows(outcome: RestoreOutcome, sql: str) -> list[tuple[Any, ...]]:
    assert outcome.connection is not None
    with psycopg.connect(outcome.connection, autocommit=True) as connection:
        return connection.execute(sql).fetchall()


def _marks(outcome: RestoreOutcome) -> list[int]:
    return [number for (number,) in _rows(outcome, "SELECT id FROM marks ORDER BY id")]


def _stop(directory: Path, cluster: Cluster) -> None:
    run_as_server_user([cluster.programs / "pg_ctl", "stop", "-m", "immediate", "-D", directory])


def _held(recorder: Recorder, at: datetime) -> list[int]:
    return [number for number, committed_at in recorder.commit_times() if committed_at <= at]


@pytest.mark.parametrize("megabytes", [16, 64])
def test_segments_of_every_size_are_rebuilt(megabytes: int, home: Path) -> None:
    newest = available_majors()[-1]
    with running_cluster(newest, wal_segment_megabytes=megabytes, settings=_TRACKED) as cluster:
        recorder = Recorder(cluster)
        recorder.prepare()
        recorder.full()
        recorder.mark(1, 5)
        recorder.log()
        cluster.execute("SELECT pg_switch_wal()")
        recorder.mark(6, 5)
        recorder.log()
        chosen = recorder.commit_times()[7][1]
        outcome = restore(recorder.steps, home / "data", to=chosen, start=True)
        assert _marks(outcome) == _held(recorder, chosen)
        _stop(home / "data", cluster)
        # The chain may well end right after a switch, in the unused rest of a segment.
        cluster.execute("SELECT pg_switch_wal()")
        recorder.log()
        outcome = restore(recorder.steps, home / "latest", start=True)
        assert _marks(outcome) == list(range(1, 11))
        _stop(home / "latest", cluster)


def test_tablespaces_are_restored_inside_the_target(major: int, home: Path) -> None:
    with running_cluster(major, settings=_TRACKED) as cluster:
        place = cluster.make_directory("space")
        cluster.execute(f"CREATE TABLESPACE space LOCATION '{place}'")
        recorder = Recorder(cluster)
        recorder.prepare()
        cluster.execute("CREATE TABLE aside (id int) TABLESPACE space")
        cluster.execute("INSERT INTO aside SELECT generate_series(1, 1000)")
        recorder.full()
        before = sorted(path.name for path in place.rglob("*"))
        recorder.log()
        outcome = restore(recorder.steps, home / "data", start=True)
        assert _rows(outcome, "SELECT count(*) FROM aside") == [(1000,)]
        ((where,),) = _rows(
            outcome,
            "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'space'",
        )
        assert Path(where).is_relative_to(home / "data")
        assert sorted(path.name for path in place.rglob("*")) == before
        assert any("sqlbak_tablespaces" in step for step in outcome.next_steps)
        _stop(home / "data", cluster)
        stopped = restore(recorder.steps, home / "stopped")
        assert (stopped.directory / "pg_tblspc").is_dir()


def test_log_that_creates_a_tablespace_never_touches_that_directory(major: int, home: Path) -> None:
    with running_cluster(major, wal_segment_megabytes=1, settings=_TRACKED) as cluster:
        recorder = Recorder(cluster)
        recorder.prepare()
        recorder.full()
        recorder.mark(1, 5)
        cluster.execute("SELECT pg_switch_wal()")
        place = cluster.make_directory("space")
        cluster.execute(f"CREATE TABLESPACE space LOCATION '{place}'")
        cluster.execute("CREATE TABLE aside (id int) TABLESPACE space")
        before = sorted(path.name for path in place.rglob("*"))
        recorder.log()
        with pytest.raises(TargetNotUsable, match=str(place)):
            restore(recorder.steps, home / "data")
        assert not (home / "data").exists()
        with pytest.raises(TargetNotUsable, match=str(place)):
            restore(recorder.steps, home / "failed", start=True)
        assert sorted(path.name for path in place.rglob("*")) == before
        chosen = recorder.commit_times()[2][1]  # before it was created
        outcome = restore(recorder.steps, home / "early", to=chosen, start=True)
        assert _marks(outcome) == [1, 2, 3]
        _stop(home / "early", cluster)


def test_log_is_followed_across_a_fork_and_a_new_timeline_number_is_new(
    major: int, home: Path
) -> None:
    with running_cluster(major, wal_segment_megabytes=1, settings=_TRACKED) as cluster:
        recorder = Recorder(cluster)
        recorder.prepare()
        recorder.full()
        recorder.mark(1, 5)
        recorder.log()
        cluster.stop()
        (cluster.data_directory / "standby.signal").touch()
        give_to_server_user(cluster.data_directory / "standby.signal")
        cluster.start()
        cluster.promote()
        recorder.mark(6, 5)
        while recorder.log().point.lineage == "1":
            pass
        recorder.mark(11, 5)
        recorder.log()
        assert recorder.steps[-1].point.lineage == "2"
        histories = {**recorder.histories, "3": b"2\t0/9000000\tsome other restore\n"}
        for chosen in (recorder.commit_times()[2][1], recorder.commit_times()[8][1]):
            outcome = restore(
                recorder.steps,
                home / f"data-{chosen.timestamp()}",
                to=chosen,
                start=True,
                histories=histories,
            )
            assert _marks(outcome) == _held(recorder, chosen)
            ((name,),) = _rows(outcome, "SELECT pg_walfile_name(pg_current_wal_lsn())")
            assert name.startswith("00000004")
            _stop(outcome.directory, cluster)
        stopped = restore(recorder.steps, home / "stopped", histories=histories)
        if has_working_program(major, "pg_verifybackup"):
            assert "successfully verified" in cluster.run("pg_verifybackup", stopped.directory)


def test_an_idle_cluster_is_restored_to_an_instant_after_its_last_commit(
    major: int, home: Path
) -> None:
    with running_cluster(major, settings=_TRACKED) as cluster:
        recorder = Recorder(cluster)
        recorder.prepare()
        recorder.mark(1, 3)
        recorder.full()
        for _ in range(2):
            time.sleep(0.05)
            recorder.log()
        last = recorder.steps[-1].point.covers_until
        assert last is not None
        outcome = restore(recorder.steps, home / "data", to=last, start=True)
        assert _marks(outcome) == [1, 2, 3]
        _stop(home / "data", cluster)


def test_a_server_that_nobody_can_ask_while_it_recovers_is_proven_by_its_log(
    major: int, home: Path
) -> None:
    """A transaction with more than 64 subtransactions that is open from before the base to the
    target keeps a hot standby from opening, and PostgreSQL then does not pause at the target."""
    with running_cluster(major, settings=_TRACKED) as cluster:
        recorder = Recorder(cluster)
        recorder.prepare()
        with psycopg.connect(cluster.dsn()) as busy:
            for number in range(100):
                busy.execute(f"SAVEPOINT s{number}")
                busy.execute("INSERT INTO marks VALUES (%s)", (10_000 + number,))
            recorder.full()
            recorder.mark(1, 5)
            recorder.log()
            chosen = recorder.commit_times()[3][1]
            outcome = restore(recorder.steps, home / "data", to=chosen, start=True)
            assert outcome.proven
            assert _marks(outcome) == [1, 2, 3, 4]
            log = (home / "data" / "sqlbak" / "server.log").read_text()
            assert "pausing at the end of recovery" not in log
            _stop(home / "data", cluster)
            busy.rollback()


def test_every_instant_around_a_commit_is_exact(home: Path) -> None:
    newest = available_majors()[-1]
    with running_cluster(newest, wal_segment_megabytes=1, settings=_TRACKED) as cluster:
        recorder = Recorder(cluster)
        recorder.prepare()
        recorder.full()
        recorder.mark(1, 6)
        recorder.log()
        committed_at = recorder.commit_times()[3][1]
        for shift in (-1, 0, 1):
            chosen = committed_at + timedelta(microseconds=shift)
            directory = home / f"data{shift}"
            outcome = restore(recorder.steps, directory, to=chosen, start=True)
            assert _marks(outcome) == ([1, 2, 3] if shift < 0 else [1, 2, 3, 4])
            _stop(directory, cluster)


def test_a_position_in_the_log_is_restored_with_all_before_it_and_nothing_behind_it(
    major: int, home: Path
) -> None:
    with running_cluster(major, wal_segment_megabytes=1, settings=_TRACKED) as cluster:
        recorder = Recorder(cluster)
        recorder.prepare()
        recorder.full()
        positions = []
        for number in range(1, 7):
            recorder.mark(number, 1, filler=100_000)
            ((text,),) = cluster.execute("SELECT pg_current_wal_insert_lsn()::text")
            positions.append(parse_lsn(text))
        recorder.log()
        for lsn, held in (
            (positions[3], [1, 2, 3, 4]),
            (positions[3] - 1, [1, 2, 3]),
            (positions[3] + 1, [1, 2, 3, 4]),
            (positions[5], [1, 2, 3, 4, 5, 6]),
        ):
            outcome = restore(recorder.steps, home / f"at-{lsn}", stop_lsn=lsn, start=True)
            assert _marks(outcome) == held
            assert outcome.reached is not None
            assert outcome.reached.lsn <= lsn
            _stop(outcome.directory, cluster)
        first, last = (step.point.last_lsn for step in recorder.steps)
        for lsn in (first - 1, last + 1):
            with pytest.raises(PositionUnreachable):
                restore(recorder.steps, home / "beyond", stop_lsn=lsn)
        outcome = restore(recorder.steps, home / "base", stop_lsn=first, start=True)
        assert _marks(outcome) == []
        _stop(outcome.directory, cluster)
        stopped = restore(recorder.steps, home / "stopped", stop_lsn=positions[1])
        assert any(f"at log position {format_lsn(positions[1])}" in s for s in stopped.next_steps)


def test_settings_of_the_source_that_would_do_harm_or_fail_here_are_overridden(
    major: int, home: Path
) -> None:
    with running_cluster(major, settings=_TRACKED) as cluster:
        recorder = Recorder(cluster)
        recorder.prepare()
        recorder.mark(1, 3)
        # As an earlier restore by hand may have left it, and a configuration that needs more
        # than this machine has.
        for name, value in {
            "recovery_target_name": "old",
            "archive_cleanup_command": "touch /tmp/sqlbak-must-not-exist",
            "recovery_end_command": "touch /tmp/sqlbak-must-not-exist",
            "synchronous_standby_names": "nobody",
        }.items():
            cluster.configure({name: value})
        with (cluster.data_directory / "postgresql.auto.conf").open("ab") as out:
            out.write(configuration_block({"recovery_target_xid": "1", "ssl": "on"}))
            out.write(b"shared_preload_libraries = 'not_there'\n")
        recorder.full()
        outcome = restore(recorder.steps, home / "data", start=True)
        assert _marks(outcome) == [1, 2, 3]
        assert any("not_there" in step for step in outcome.next_steps)
        assert _rows(outcome, "SHOW synchronous_standby_names") == [("",)]
        assert not Path("/tmp/sqlbak-must-not-exist").exists()
        content = (home / "data" / "postgresql.auto.conf").read_text()
        assert content.count("sqlbak restore: begin") == 1
        _stop(home / "data", cluster)


def test_a_cluster_without_configuration_files_gets_minimal_ones(home: Path) -> None:
    """Debian keeps them in /etc, so they are in no backup."""
    newest = available_majors()[-1]
    with running_cluster(newest) as cluster:
        recorder = Recorder(cluster)
        recorder.prepare()
        for name in ("postgresql.conf", "pg_hba.conf", "pg_ident.conf"):
            (cluster.data_directory / name).rename(cluster.home / name)
        recorder.full()
        outcome = restore(recorder.steps, home / "data", start=True)
        assert _marks(outcome) == []
        assert any("no postgresql.conf" in step for step in outcome.next_steps)
        assert _rows(outcome, "SHOW max_connections") == [("100",)]
        _stop(home / "data", cluster)


def test_tablespaces_go_where_the_operator_says(home: Path) -> None:
    newest = available_majors()[-1]
    with running_cluster(newest) as cluster:
        for name in ("moved", "other"):
            cluster.execute(f"CREATE TABLESPACE {name} LOCATION '{cluster.make_directory(name)}'")
            cluster.execute(
                f"CREATE TABLE in_{name} TABLESPACE {name} AS SELECT generate_series(1, 1000)"
            )
        recorder = Recorder(cluster)
        recorder.full()
        chosen = {f"{cluster.home}/moved/": home / "new" / "place"}
        outcome = restore(recorder.steps, home / "data", start=True, tablespaces=chosen)
        assert _rows(outcome, "SELECT count(*) FROM in_moved, in_other") == [(1_000_000,)]
        places = _rows(
            outcome,
            "SELECT spcname, pg_tablespace_location(oid) FROM pg_tablespace"
            " WHERE spcname IN ('moved', 'other') ORDER BY 1",
        )
        assert places[0] == ("moved", f"{home}/new/place")
        assert places[1][1].startswith(f"{home}/data/sqlbak_tablespaces/")
        assert set(outcome.facts["tablespaces"].values()) == {place for _, place in places}
        _stop(home / "data", cluster)


@pytest.fixture
def moved(newest_cluster: Cluster, home: Path) -> Iterator[Path]:
    """Where a tablespace of the newest cluster lies."""
    location = home.with_name(f"{home.name}-moved")
    location.mkdir()
    give_to_server_user(location)
    newest_cluster.execute(f"CREATE TABLESPACE moved LOCATION '{location}'")
    try:
        yield location
    finally:
        newest_cluster.execute("DROP TABLESPACE moved")
        location.rmdir()


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("/nowhere", "place", UnknownName),
        ("", "full", TargetNotUsable),
        ("", "data/place", TargetNotUsable),
        ("", "", TargetNotUsable),
    ],
)
def test_a_place_that_cannot_hold_a_tablespace_is_refused_before_anything_is_written(
    newest_cluster: Cluster,
    home: Path,
    moved: Path,
    old: str,
    new: str,
    error: type[Exception],
) -> None:
    (home / "full").mkdir()
    (home / "full" / "precious").touch()
    recorder = Recorder(newest_cluster)
    recorder.full()
    chosen = {old or str(moved): home / new}
    with pytest.raises(error):
        restore(recorder.steps, home / "data", tablespaces=chosen)
    assert sorted(path.name for path in home.iterdir()) == ["full"]


def test_a_failed_restore_leaves_nothing_where_tablespaces_were_to_go(
    newest_cluster: Cluster, home: Path, moved: Path
) -> None:
    recorder = Recorder(newest_cluster)
    full = recorder.full()
    assert isinstance(full.source, MemorySource)
    full.source.frames["base.tar"][-1][7] ^= 0x10
    (home / "there").mkdir()
    for place in (home / "there", home / "absent"):
        with pytest.raises(ObjectDamaged):
            restore([full], home / "data", tablespaces={str(moved): place})
    assert list(home.iterdir()) == [home / "there"]
    assert list((home / "there").iterdir()) == []
