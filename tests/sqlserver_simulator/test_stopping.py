"""STOPAT: the grid, the wall clock, what happens beyond the end, and bulk changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from .clock import last_tick, on_datetime_grid
from .instance import Unknowns
from .rules import Rules
from .simulator import Simulator

NOON = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def simulator(media: Path) -> Simulator:
    simulator = Simulator({"/backup": media})
    simulator.clock.set(NOON)
    return simulator


@pytest.fixture
def rules(simulator: Simulator) -> Rules:
    simulator.create_database("shop", rows=["a"])
    return Rules(simulator)


def prepared(rules: Rules, *seconds: float) -> tuple[str, str]:
    """A full at noon, a commit at each of these seconds after it, and the log of them."""
    full = rules.full()
    at = 0.0
    for second in seconds:
        rules.simulator.clock.advance(seconds=second - at)
        at = second
        rules.simulator.insert("shop", str(second))
    rules.simulator.clock.advance(seconds=60)
    return full, rules.log()


def stop(text: str, *more: str) -> str:
    return ", ".join([f"STOPAT = '{text}'", *more])


@pytest.mark.parametrize(
    ("given", "kept"),
    [(0, 0), (1_000, 0), (2_000, 3_000), (5_000, 7_000), (8_000, 7_000), (9_000, 10_000),
     (998_000, 997_000), (999_000, 1_000_000)],
)  # fmt: skip
def test_the_type_datetime_rounds_to_its_grid(given: int, kept: int) -> None:
    start = datetime(2026, 1, 1)  # noqa: DTZ001
    found = on_datetime_grid(start + timedelta(microseconds=given))
    assert found == start + timedelta(microseconds=kept)


def test_a_commit_never_carries_a_later_time_than_its_own() -> None:
    start = datetime(2026, 1, 1)  # noqa: DTZ001
    for microsecond in range(0, 1_000_000, 997):
        moment = start + timedelta(microseconds=microsecond)
        tick = last_tick(moment)
        assert tick <= moment + timedelta(microseconds=334)
        assert moment - tick < timedelta(microseconds=4000)


def test_a_stop_between_two_commits_keeps_the_first(rules: Rules) -> None:
    full, log = prepared(rules, 10, 20)
    rules.restore(full)
    rules.apply(log, options="NORECOVERY, " + stop("2026-05-01T12:00:15.000"))
    assert rules.recover() == ["a", "10"]


@pytest.mark.parametrize(("kept", "rows"), [(True, ["a", "10"]), (False, ["a"])])
def test_a_stop_at_a_commit(media: Path, kept: bool, rows: list[str]) -> None:
    simulator = Simulator({"/backup": media}, unknowns=Unknowns(commit_at_stop_is_kept=kept))
    simulator.clock.set(NOON)
    simulator.create_database("shop", rows=["a"])
    rules = Rules(simulator)
    full, log = prepared(rules, 10, 20)
    rules.restore(full)
    rules.apply(log, options="NORECOVERY, " + stop("2026-05-01T12:00:10.000"))
    assert rules.recover() == rows


def test_half_a_millisecond_too_much_takes_a_later_commit(rules: Rules) -> None:
    full, log = prepared(rules, 10, 11)
    rules.restore(full)
    rules.apply(log, options="NORECOVERY, " + stop("2026-05-01T12:00:10.999"))
    assert rules.recover() == ["a", "10", "11"]


@pytest.mark.parametrize("last", [True, False])
def test_a_stop_beyond_the_log_is_no_error_but_leaves_it_restoring(media: Path, last: bool) -> None:
    with Simulator(
        {"/backup": media}, unknowns=Unknowns(warning_4322_comes_last=last)
    ) as simulator:
        simulator.clock.set(NOON)
        simulator.create_database("shop", rows=["a"])
        rules = Rules(simulator)
        full, log = prepared(rules, 10)
        rules.restore(full)
        from .wireclient import WireClient

        client = WireClient(simulator.host, simulator.port, "sa", simulator.sa_password)
        answer = client.batch(
            f"RESTORE LOG copy FROM DISK = '{log}' WITH RECOVERY, "
            + stop("2026-05-01T13:00:00.000")
        )
        client.close()
        numbers = [each[0] for each in answer.info]
        assert not answer.errors
        assert numbers.index(4322) == (len(numbers) - 1 if last else 0)
        assert next(each for each in answer.info if each[0] == 4322)[2] == 0
        assert simulator.database("copy").state == "RESTORING"
        assert rules.recover() == ["a", "10"]


def test_after_stopping_inside_a_log_the_next_one_is_too_recent(rules: Rules) -> None:
    full, log = prepared(rules, 10, 20)
    rules.simulator.insert("shop", "next")
    following = rules.log()
    rules.restore(full)
    rules.apply(log, options="NORECOVERY, " + stop("2026-05-01T12:00:15.000"))
    rules.refused(f"RESTORE LOG copy FROM DISK = '{following}' WITH NORECOVERY", 4305, 3013)


def test_a_stop_in_the_past_of_the_database_is_refused(rules: Rules) -> None:
    full, log = prepared(rules, 10, 20)
    early = stop("2026-05-01T11:00:00.000")
    rules.refused(
        f"RESTORE DATABASE copy FROM DISK = '{full}' WITH NORECOVERY, {early}", 4338, 3013
    )
    rules.restore(full)
    rules.refused(f"RESTORE LOG copy FROM DISK = '{log}' WITH NORECOVERY, {early}", 4335, 3013)


def test_bulk_changes_cannot_be_stopped_in(rules: Rules) -> None:
    rules.simulator.execute("ALTER DATABASE shop SET RECOVERY BULK_LOGGED")
    full = rules.full()
    rules.simulator.clock.advance(seconds=10)
    rules.simulator.bulk_insert("shop", "b")
    rules.simulator.clock.advance(seconds=10)
    rules.simulator.insert("shop", "c")
    log = rules.log()
    rules.restore(full)
    inside = stop("2026-05-01T12:00:15.000")
    rules.refused(f"RESTORE LOG copy FROM DISK = '{log}' WITH NORECOVERY, {inside}", 4341, 3013)
    rules.apply(log)
    assert rules.recover() == ["a", "b", "c"]


@pytest.mark.parametrize(("word", "rows"), [("STOPBEFOREMARK", ["a"]), ("STOPATMARK", ["a", "10"])])
def test_a_stop_by_lsn(rules: Rules, word: str, rows: list[str]) -> None:
    full, log = prepared(rules, 10, 20)
    commit = rules.simulator.commits("shop")[-2]
    rules.restore(full)
    rules.apply(log, options=f"NORECOVERY, {word} = 'lsn:{commit.lsn}'")
    assert rules.recover() == rows


def test_a_stop_by_mark(rules: Rules) -> None:
    full = rules.full()
    rules.simulator.execute(
        "BEGIN TRAN release WITH MARK 'v2'; INSERT shop.dbo.t VALUES (N'marked'); COMMIT"
    )
    rules.simulator.insert("shop", "after")
    log = rules.log()
    rules.restore(full)
    rules.apply(log, options="NORECOVERY, STOPBEFOREMARK = 'release'")
    assert rules.recover() == ["a"]


def test_in_autumn_the_repeated_hour_is_found_the_first_time(media: Path) -> None:
    simulator = Simulator({"/backup": media}, zone="Europe/Berlin")
    simulator.clock.set(datetime(2026, 10, 25, 0, 0, tzinfo=UTC))
    simulator.create_database("shop", rows=["a"])
    rules = Rules(simulator)
    full = rules.full()
    simulator.clock.set(datetime(2026, 10, 25, 0, 30, tzinfo=UTC))  # 02:30 CEST
    simulator.insert("shop", "summer")
    simulator.clock.set(datetime(2026, 10, 25, 1, 10, tzinfo=UTC))  # 02:10 CET
    simulator.insert("shop", "winter")
    simulator.clock.set(datetime(2026, 10, 25, 3, 0, tzinfo=UTC))
    log = rules.log()
    times = [each.local for each in simulator.commits("shop")[-2:]]
    assert times[0] > times[1]
    assert rules.header(full).time_zone == 8
    assert rules.header(log).time_zone == 4
    rules.restore(full)
    rules.apply(log, options="NORECOVERY, " + stop("2026-10-25T02:20:00.000"))
    assert rules.recover() == ["a"]
    offset = simulator.execute("SELECT DATEPART(tz, SYSDATETIMEOFFSET()), CURRENT_TIMEZONE_ID()")
    assert offset == [(60, "W. Europe Standard Time")]


def test_headers_show_local_time_cut_to_seconds_on_a_clock_that_is_wrong(media: Path) -> None:
    simulator = Simulator({"/backup": media}, zone="Asia/Kolkata")
    simulator.clock.set(NOON + timedelta(milliseconds=900))
    simulator.clock.skew = timedelta(minutes=-7)
    simulator.create_database("shop")
    rules = Rules(simulator)
    facts = rules.header(rules.full())
    assert facts.backup_start_date == datetime(2026, 5, 1, 17, 23)  # noqa: DTZ001
    assert facts.time_zone == 22


def test_the_true_history_is_kept_beside_the_log(rules: Rules) -> None:
    prepared(rules, 10, 20)
    assert rules.simulator.rows_at("shop", NOON + timedelta(seconds=15)) == ["a", "10"]


def test_a_stop_in_the_tail_that_was_not_backed_up(rules: Rules) -> None:
    full, _ = prepared(rules, 10)
    rules.simulator.insert("shop", "tail")
    sql = f"RESTORE DATABASE shop FROM DISK = '{full}' WITH NORECOVERY, "
    rules.refused(sql + stop("2026-05-01T12:02:00.000"), 3173, 3013)
    rules.simulator.execute(sql + stop("2026-05-01T12:00:30.000"))


def test_simple_databases_know_no_stop(rules: Rules) -> None:
    rules.simulator.execute("ALTER DATABASE shop SET RECOVERY SIMPLE")
    full = rules.full()
    rules.refused(
        f"RESTORE DATABASE copy FROM DISK = '{full}' WITH "
        "MOVE 'shop' TO '/var/opt/mssql/data/c.mdf', MOVE 'shop_log' TO "
        "'/var/opt/mssql/data/c.ldf', " + stop("2026-05-01T12:02:00.000"),
        3145,
        3013,
    )
