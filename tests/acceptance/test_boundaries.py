"""The very edges of what can be restored, to the microsecond; and what lies beyond is refused
before anything is touched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from tests.acceptance.history import History, instant
from tests.acceptance.judges import restored_started
from tests.acceptance.site import Answer, Site
from tests.acceptance.witness import assert_holds_exactly
from tests.engines.postgres.clusters import scratch_directory

pytestmark = pytest.mark.postgres

MICROSECOND = timedelta(microseconds=1)


@pytest.fixture
def home() -> Iterator[Path]:
    with scratch_directory() as path:
        yield path


@pytest.fixture
def full_site(site: Site) -> Site:
    """Like ``site``, with a first recovery point."""
    site.backup("full")
    return site


def assert_refused(
    answer: Answer, code: str, nearest: Sequence[datetime] | None = None, exit_code: int = 3
) -> None:
    assert answer.code == exit_code, answer.err
    assert list(answer.document) == ["error"]
    error = answer.document["error"]
    keys = {"code", "message", "hint"} | ({"nearest"} if exit_code == 3 else set())
    assert set(error) == keys
    assert error["code"] == code
    assert error["message"] in answer.err
    assert "Traceback" not in answer.err
    if nearest is not None:
        assert [instant(text) for text in error["nearest"]] == list(nearest)
        assert all(text in error["hint"] for text in error["nearest"])


def edges(history: History) -> list[datetime]:
    """Where points begin and end, within the windows."""
    named = {
        instant(point[name])
        for point in history.points
        for name in ("reachable_from", "covers_until")
        if point[name] is not None
    }
    return sorted(named)


def assert_restored(history: History, to: datetime, into: Path) -> None:
    with restored_started(history.site, history.major, to.isoformat(), into) as restored:
        assert_holds_exactly(restored.rows, history.marks, to)


def test_the_ends_of_windows_and_points_come_back_exactly(history: History, home: Path) -> None:
    (first, before_gap), (after_gap, _) = history.windows
    in_the_middle = instant(
        next(
            point["reachable_from"]
            for point in history.points
            if point["type"] == "full" and first < instant(point["reachable_from"]) < after_gap
        )
    )
    for to in (first, in_the_middle, before_gap, after_gap):
        assert_restored(history, to, home / "data")


def test_latest_is_the_end_of_the_last_window(history: History, home: Path) -> None:
    to = history.windows[-1][1]
    with restored_started(history.site, history.major, "latest", home / "data") as restored:
        assert instant(restored.document["stop_at"]) == to
        assert_holds_exactly(restored.rows, history.marks, to)
        assert restored.rows("SELECT count(*) FROM marks") == [(len(history.marks),)]


def test_what_lies_beyond_the_windows_is_refused_with_the_nearest_instants(
    history: History, home: Path
) -> None:
    (first, before_gap), (after_gap, last) = history.windows
    gap = (before_gap, after_gap)
    middle = before_gap + (after_gap - before_gap) / 2
    for to, nearest in (
        (first - MICROSECOND, [first]),
        (datetime(1970, 1, 1, tzinfo=UTC), [first]),
        (before_gap + MICROSECOND, gap),
        (middle, gap),
        (after_gap - MICROSECOND, gap),
        (last + MICROSECOND, [last]),
        (datetime(9998, 12, 31, 23, 59, 59, 999999, UTC), [last]),
    ):
        answer = history.site.restore(to.isoformat(), home / "absent", "--start")
        assert_refused(answer, "instant_unreachable", nearest)
        assert list(home.iterdir()) == []


def test_a_refused_restore_leaves_an_empty_target_as_it_was(history: History, home: Path) -> None:
    target = home / "empty"
    target.mkdir(mode=0o755)
    before = target.stat()
    to = history.windows[-1][1] + MICROSECOND
    assert_refused(history.site.restore(to.isoformat(), target), "instant_unreachable")
    assert list(target.iterdir()) == []
    after = target.stat()
    assert (after.st_mode, after.st_uid, after.st_mtime_ns, after.st_ino) == (
        *(before.st_mode, before.st_uid, before.st_mtime_ns, before.st_ino),
    )


def test_a_time_without_an_offset_is_read_in_the_policy_s_zone(
    history: History, tmp_path: Path
) -> None:
    zone = ZoneInfo("Asia/Kathmandu")  # +05:45, and no clock changes
    there = Site(
        tmp_path,
        history.site.dsn,
        vault_url=history.site.vault_url,
        policy=f'full: "0 1 * * *"\n    log: 15m\n    timezone: {zone.key}',
    )
    to = history.any_instant()
    local = to.astimezone(zone).replace(tzinfo=None).isoformat()
    plan = there.run("plan", "orders", "--to", local).ok()
    assert instant(plan["stop_at"]) == to


def test_local_times_that_happen_twice_or_never_are_refused_with_what_they_could_mean(
    full_site: Site, home: Path
) -> None:
    (full_site.config / "orders.yaml").write_text(
        full_site.text().replace("    log: 15m", "    log: 15m\n    timezone: Europe/Berlin")
    )
    twice = full_site.restore("2025-10-26T02:30:00", home / "absent")
    readings = [datetime(2025, 10, 26, hour, 30, tzinfo=UTC) for hour in (0, 1)]
    assert twice.code == 3
    assert twice.document["error"]["code"] == "instant_ambiguous"
    assert [instant(t) for t in twice.document["error"]["nearest"]] == readings
    never = full_site.restore("2025-03-30T02:30:00", home / "absent")
    around = [datetime(2025, 3, 30, 0, 59, 59, tzinfo=UTC), datetime(2025, 3, 30, 1, tzinfo=UTC)]
    assert never.code == 3
    assert never.document["error"]["code"] == "instant_nonexistent"
    assert [instant(t) for t in never.document["error"]["nearest"]] == around
    for answer in (twice, never):
        assert set(answer.document["error"]) == {"code", "message", "hint", "nearest"}
    assert list(home.iterdir()) == []


def test_what_is_no_time_is_a_usage_error(full_site: Site, home: Path) -> None:
    for text in (
        "",
        "yesterday",
        "latest-1",
        "1700000000",
        "2026-05-01",
        "2026-13-01T00:00:00",
        "2026-05-01T24:00:00",
        "2026-05-01T10:22:13.1234567",
        "2026-05-01T10:22:13+99:00",
    ):
        assert_refused(full_site.restore(text, home / "absent"), "usage", exit_code=2)
    assert list(home.iterdir()) == []


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_every_edge_and_its_neighbours_come_back_exactly(history: History, home: Path) -> None:
    done = 0
    for edge in edges(history):
        for to in (edge - MICROSECOND, edge, edge + MICROSECOND):
            if any(start <= to <= end for start, end in history.windows):
                assert_restored(history, to, home / "data")
                done += 1
            else:
                answer = history.site.restore(to.isoformat(), home / "absent")
                assert_refused(answer, "instant_unreachable")
    print(f"PostgreSQL {history.major}: {done} restores at edges, 0 mismatches")
