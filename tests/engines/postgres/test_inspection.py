"""Inspection and its errors: each obstacle is named once, with the line that mends it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from sqlbak.engines.port import Inspection, Problem, Severity
from sqlbak.engines.postgres.engine import PostgresEngine
from sqlbak.engines.postgres.inspection import ServerView, find_problems
from sqlbak.errors import (
    EngineError,
    ServerNotReady,
    ServerRefused,
    ServerUnreachable,
    UsageError,
)
from sqlbak.model import LogPosition
from sqlbak.progress import NO_PROGRESS
from sqlbak.stopping import NEVER
from tests.engines.postgres.backups import MemorySink
from tests.engines.postgres.clusters import (
    Cluster,
    available_majors,
    free_port,
    running_cluster,
)

postgres = pytest.mark.postgres
PASSWORD = "correct-horse"


def engine_at(dsn: str) -> PostgresEngine:
    return PostgresEngine(dsn, slot_name="sqlbak_inspected", connect_timeout_seconds=5)


def full(engine: PostgresEngine) -> None:
    engine.full(MemorySink(), label="x", progress=NO_PROGRESS, stop=NEVER)


def blocking(inspection: Inspection) -> dict[str, Problem]:
    found = [p for p in inspection.problems if p.severity is Severity.BLOCKING]
    assert len({problem.code for problem in found}) == len(found)
    return {problem.code: problem for problem in found}


@pytest.fixture(scope="module", params=available_majors(), ids=lambda major: f"pg{major}")
def guarded(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster as the set-up page asks for: passwords, and a role that may only replicate."""
    with running_cluster(
        request.param,
        hba="local all postgres trust\n"
        "host replication sqlbak 127.0.0.1/32 scram-sha-256\n"
        "host postgres sqlbak,plain 127.0.0.1/32 scram-sha-256\n"
        "host replication plain 127.0.0.1/32 scram-sha-256\n"
        "host postgres unlisted 127.0.0.1/32 scram-sha-256\n",
    ) as cluster:
        cluster.execute(f"CREATE ROLE sqlbak WITH LOGIN REPLICATION PASSWORD '{PASSWORD}'")
        cluster.execute(f"CREATE ROLE plain WITH LOGIN PASSWORD '{PASSWORD}'")
        cluster.execute(f"CREATE ROLE unlisted WITH LOGIN REPLICATION PASSWORD '{PASSWORD}'")
        yield cluster


def as_role(cluster: Cluster, user: str, password: str = PASSWORD) -> PostgresEngine:
    return engine_at(cluster.dsn(user=user, password=password, over_tcp=True))


@postgres
def test_the_least_privileged_role_of_the_docs_takes_all_backups(guarded: Cluster) -> None:
    engine = as_role(guarded, "sqlbak")
    assert blocking(engine.inspect()) == {}
    result = engine.full(MemorySink(), label="x", progress=NO_PROGRESS, stop=NEVER)
    since = LogPosition(result.lineage, result.last_lsn)
    log = engine.log(since, MemorySink(), progress=NO_PROGRESS, stop=NEVER)
    engine.acknowledge(LogPosition(log.lineage, log.last_lsn))
    assert engine.oldest_log() == LogPosition(log.lineage, log.last_lsn)
    assert result.facts["backup_role"] == "sqlbak"
    assert result.facts["data_directory_files"]["config_file"] is None
    engine.drop_slot()


@postgres
def test_hidden_settings_become_visible_by_the_grant_that_is_offered(guarded: Cluster) -> None:
    engine = as_role(guarded, "sqlbak")
    (problem,) = [p for p in engine.inspect().problems if p.code == "settings_hidden"]
    guarded.execute(problem.remedy)
    assert "settings_hidden" not in {p.code for p in engine.inspect().problems}
    guarded.execute("REVOKE pg_read_all_settings FROM sqlbak")


@postgres
def test_a_wrong_password_is_refused_and_never_repeated(guarded: Cluster) -> None:
    engine = as_role(guarded, "sqlbak", "hunter2")
    for ask in (engine.inspect, lambda: full(engine), engine.oldest_log):
        with pytest.raises(ServerRefused, match="password authentication failed") as refused:
            ask()
        assert "hunter2" not in f"{refused.value} {refused.value.hint} {refused.value!r}"


@postgres
def test_a_role_without_replication(guarded: Cluster) -> None:
    engine = as_role(guarded, "plain")
    problems = blocking(engine.inspect())
    assert problems["role_lacks_replication"].remedy == 'ALTER ROLE "plain" WITH REPLICATION;'
    assert set(problems) == {"role_lacks_replication"}
    with pytest.raises(ServerRefused) as refused:
        full(engine)
    assert refused.value.hint == 'ALTER ROLE "plain" WITH REPLICATION;'


@postgres
def test_a_missing_pg_hba_entry_is_shown_ready_to_paste(guarded: Cluster) -> None:
    engine = as_role(guarded, "unlisted")
    problems = blocking(engine.inspect())
    assert set(problems) == {"hba_replication_missing"}
    remedy = problems["hba_replication_missing"].remedy
    line = "host  replication  unlisted  127.0.0.1/32  scram-sha-256"
    assert line in remedy
    with pytest.raises(ServerRefused) as refused:
        full(engine)
    assert refused.value.hint == remedy
    with (guarded.data_directory / "pg_hba.conf").open("a") as hba:
        hba.write(line + "\n")
    guarded.reload()
    for _ in range(100):
        if blocking(engine.inspect()) == {}:
            break
        time.sleep(0.05)
    else:
        raise AssertionError("the line did not help")


@postgres
def test_a_function_that_was_taken_away_is_named_with_its_grant(guarded: Cluster) -> None:
    guarded.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
    engine = as_role(guarded, "sqlbak")
    try:
        (problem,) = blocking(engine.inspect()).values()
        assert problem.code == "function_forbidden"
        with pytest.raises(ServerRefused, match="pg_control_system"):
            full(engine)
        guarded.execute(problem.remedy)
        assert blocking(engine.inspect()) == {}
    finally:
        guarded.execute("GRANT EXECUTE ON FUNCTION pg_control_system() TO PUBLIC")


@postgres
def test_inspection_changes_nothing_and_knows_where_the_cluster_stands(
    newest_cluster: Cluster,
) -> None:
    inspection = engine_at(newest_cluster.dsn()).inspect()
    assert inspection.engine == "postgres"
    assert inspection.version.startswith(str(newest_cluster.major))
    assert inspection.server_clock is not None
    (item,) = inspection.items
    ((system_identifier, end),) = newest_cluster.execute(
        "SELECT system_identifier::text, pg_current_wal_flush_lsn() - '0/0'"
        " FROM pg_control_system()"
    )
    assert item.identity == system_identifier
    assert item.database is None
    assert item.position is not None
    assert item.position.lineage == "1"
    assert item.position.lsn <= end
    assert inspection.facts["slot"]["exists"] is False
    codes = {problem.code for problem in inspection.problems}
    assert codes == {"slot_unlimited", "fsync_off"}
    assert newest_cluster.execute(
        "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'sqlbak_inspected'"
    ) == [(0,)]


@postgres
@pytest.mark.parametrize(
    ("settings", "code", "remedy", "error"),
    [
        (
            {"wal_level": "minimal", "max_wal_senders": "0"},
            "wal_level_minimal",
            "wal_level = 'replica'",
            ServerNotReady,
        ),
        ({"max_wal_senders": "0"}, "no_free_wal_sender", "max_wal_senders = 10", ServerNotReady),
        ({"max_wal_senders": "1"}, "no_free_wal_sender", "max_wal_senders = 11", ServerNotReady),
        (
            {"max_replication_slots": "1"},
            "no_free_replication_slot",
            "max_replication_slots = 11",
            ServerNotReady,
        ),
        (
            {"max_replication_slots": "0"},
            "no_free_replication_slot",
            "max_replication_slots = 10",
            ServerNotReady,
        ),
    ],
)
def test_settings_that_allow_no_backup(
    settings: dict[str, str], code: str, remedy: str, error: type[EngineError]
) -> None:
    with running_cluster(available_majors()[0], settings=settings) as cluster:
        engine = engine_at(cluster.dsn())
        problem = blocking(engine.inspect())[code]
        assert remedy in problem.remedy
        assert len(engine.inspect().items) == 1
        with pytest.raises(error) as failed:
            full(engine)
        assert failed.value.hint


@postgres
def test_settings_that_put_backups_at_risk() -> None:
    with running_cluster(
        available_majors()[-1],
        has_checksums=False,
        settings={"full_page_writes": "off", "idle_replication_slot_timeout": "1h"}
        if available_majors()[-1] >= 18
        else {"full_page_writes": "off"},
    ) as cluster:
        outside = cluster.home / "pg_ident.conf"
        (cluster.data_directory / "pg_ident.conf").rename(outside)
        cluster.configure({"ident_file": str(outside)})
        cluster.restart()
        inspection = engine_at(cluster.dsn()).inspect()
        assert blocking(inspection) == {}
        codes = {problem.code for problem in inspection.problems}
        expected = {"checksums_off", "full_page_writes_off", "configuration_outside"}
        assert expected <= codes
        if cluster.major >= 18:
            assert "idle_slot_timeout" in codes


@postgres
def test_a_logical_slot_of_our_name_is_left_alone() -> None:
    with running_cluster(available_majors()[0], settings={"wal_level": "logical"}) as cluster:
        cluster.execute("SELECT pg_create_logical_replication_slot('sqlbak_inspected', 'pgoutput')")
        engine = engine_at(cluster.dsn())
        assert "slot_is_logical" in blocking(engine.inspect())
        with pytest.raises(ServerNotReady, match="logical"):
            full(engine)


@pytest.mark.parametrize(
    "dsn",
    [f"host=127.0.0.1 port={free_port()}", "host=/nowhere/at/all"],
    ids=["nobody listens", "no socket"],
)
def test_a_server_that_is_down(dsn: str) -> None:
    engine = engine_at(dsn)
    for ask in (engine.inspect, lambda: full(engine), engine.oldest_log, engine.drop_slot):
        with pytest.raises(ServerUnreachable) as failed:
            ask()
        assert failed.value.hint


@pytest.mark.parametrize("name", ["", "Upper", "a-b", "a b", 'a"b', "x" * 64])
def test_a_slot_name_that_postgresql_would_not_take(name: str) -> None:
    with pytest.raises(UsageError):
        PostgresEngine("host=x", slot_name=name)


def view(**changes: object) -> ServerView:
    good: dict[str, object] = {
        "role": "sqlbak",
        "is_replication_role": True,
        "is_in_recovery": False,
        "settings": {
            "server_version_num": "180004",
            "server_version": "18.4",
            "wal_level": "replica",
            "max_wal_senders": "10",
            "max_replication_slots": "10",
            "max_slot_wal_keep_size": "10240",
            "idle_replication_slot_timeout": "0",
            "data_checksums": "on",
            "fsync": "on",
            "full_page_writes": "on",
            "config_file": "/data/postgresql.conf",
            "hba_file": "/data/pg_hba.conf",
            "ident_file": "/data/pg_ident.conf",
            "data_directory": "/data",
        },
        "used_wal_senders": 0,
        "used_replication_slots": 0,
        "forbidden_functions": (),
        "managed_by": None,
        "slot_name": "s",
        "slot": None,
        "replication_failure": None,
    }
    return ServerView(**(good | changes))  # type: ignore[arg-type]


def test_a_server_that_is_set_up_well_has_no_problem() -> None:
    assert list(find_problems(view())) == []


def test_a_standby_whose_primary_nobody_can_be_asked_for_is_told_what_that_costs() -> None:
    (problem,) = find_problems(view(is_in_recovery=True, why_no_primary="no primary_dsn"))
    assert (problem.code, problem.severity) == ("primary_not_asked", Severity.WARNING)
    assert "primary_dsn" in problem.remedy


def test_an_old_server_is_refused() -> None:
    settings = {**view().settings, "server_version_num": "140015", "server_version": "14.15"}
    (problem,) = find_problems(view(settings=settings))
    assert problem.code == "unsupported_version"
    assert problem.severity is Severity.BLOCKING


def test_a_managed_service_without_replication_is_called_by_its_name() -> None:
    failure = Problem("hba_replication_missing", Severity.BLOCKING, "x", "y")
    problems = list(find_problems(view(managed_by="Amazon RDS", replication_failure=failure)))
    assert [problem.code for problem in problems] == ["hba_replication_missing", "managed_service"]
    assert "Amazon RDS" in problems[1].what
