from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from sqlbak.model import Point, PointType
from sqlbak.policy.cron import CronLine
from sqlbak.policy.duration import Duration
from sqlbak.policy.preview import preview
from sqlbak.policy.retention import kept_until, reasons_to_keep
from sqlbak.policy.schema import LogCadence, Policy, Retention

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAY = timedelta(days=1)
FULL, DIFFERENTIAL, LOG = PointType.FULL, PointType.DIFFERENTIAL, PointType.LOG


def point(kind: PointType, days_ago: float, *, base: str | None = None) -> Point:
    at = NOW - timedelta(days=days_ago)
    position = int((at - datetime(2000, 1, 1, tzinfo=UTC)).total_seconds())
    first = position - 86400 if kind is LOG else position
    name = f"{at:%Y%m%dT%H%M%SZ}-{kind.value[0]}aaaaaaaaa"
    return Point(name, kind, "1", first, position, at, at, base_id=base)


def kept(points: list[Point], **spans: str) -> dict[str, tuple[str, ...]]:
    retention = Retention(**{key: Duration.parse(text) for key, text in spans.items()})
    found = reasons_to_keep(points, retention, UTC, NOW)
    return {one.id: found[one.id] for one in points if one.id in found}


def test_spans_of_months_and_years_follow_the_calendar() -> None:
    at = datetime(2027, 1, 31, 1, tzinfo=UTC)
    assert kept_until(at, Duration.parse("1m")) == datetime(2027, 2, 28, 1, tzinfo=UTC)
    assert kept_until(at, Duration.parse("1y")) == datetime(2028, 1, 31, 1, tzinfo=UTC)
    assert kept_until(at, Duration.parse("2w")) == at + 14 * DAY


def test_each_type_is_kept_for_its_span_and_the_first_of_a_month_for_longer() -> None:
    fulls = [point(FULL, days) for days in range(100)]
    found = kept(fulls, full="30d", monthly="12m")
    assert [one.id in found for one in fulls[:30]] == [True] * 30
    old = [one for one in fulls[30:] if one.id in found]
    assert [one.finished_at.strftime("%d.%m.") for one in old] == ["01.10.", "01.09.", "15.08."]
    assert all("monthly: 12m" in found[one.id] for one in old)


def test_what_a_kept_point_needs_is_kept_with_it() -> None:
    base = point(FULL, 40)
    differential = point(DIFFERENTIAL, 20, base=base.id)
    logs = [point(LOG, days) for days in range(39, -1, -1)]
    found = kept([base, differential, *logs], full="30d", log="15d")
    assert base.id in found
    assert any("base of" in why for why in found[base.id])
    # Without those between the full and the first log of the span, that span has no restore.
    assert all(log.id in found for log in logs)


@given(st.lists(st.integers(0, 400), min_size=1, max_size=30, unique=True), st.integers(7, 40))
def test_a_kept_log_always_has_its_full_and_every_log_in_between(
    full_days: list[int], span: int
) -> None:
    fulls = [point(FULL, days + 0.5) for days in full_days]
    logs = [point(LOG, days) for days in range(60)]
    found = kept([*fulls, *logs], full="7d", log=f"{min(span, 35)}d")
    kept_logs = [log for log in logs if log.id in found]
    first = min(kept_logs, key=lambda log: log.first_lsn)
    older = [full for full in fulls if full.last_lsn <= first.first_lsn]
    assert not older or any(full.id in found for full in older) or first.id in found
    ordered = sorted(kept_logs, key=lambda log: log.first_lsn)
    assert all(a.last_lsn == b.first_lsn for a, b in pairwise(ordered))


def policy(full: str, *, zone: str = "UTC", keep: str = "30d") -> Policy:
    return Policy(
        vault="main",
        timezone=zone,
        full=CronLine.parse(full),
        log=LogCadence.HOURLY,
        retention=Retention(full=Duration.parse(keep)),
    )


def test_a_preview_tells_slots_that_come_and_go_and_points_that_would_be_let_go() -> None:
    points = [point(FULL, days) for days in range(28)]
    old, new = policy("0 1 * * *"), policy("0 1 * * sun", keep="7d")
    seen = preview("orders", old, new, points, NOW)
    assert len(seen.lost) == 24
    assert {slot.kind for slot in seen.lost} == {FULL}
    assert seen.gained == ()
    assert len(seen.expiring) == 21
    assert preview("orders", old, old, points, NOW).is_nothing
    back = preview("orders", new, old, points, NOW)
    assert (len(back.gained), len(back.returning)) == (24, 21)


def test_a_zone_alone_moves_fulls_and_no_logs() -> None:
    seen = preview("orders", policy("0 1 * * *"), policy("0 1 * * *", zone="Asia/Tokyo"), [], NOW)
    assert (len(seen.gained), len(seen.lost)) == (28, 28)
    assert {slot.kind for slot in (*seen.gained, *seen.lost)} == {FULL}


def test_an_item_that_is_not_protected_any_more_loses_slots_and_no_points() -> None:
    seen = preview("orders", policy("0 1 * * *"), None, [point(FULL, 1)], NOW)
    assert len([slot for slot in seen.lost if slot.kind is FULL]) == 28
    assert seen.expiring == ()
