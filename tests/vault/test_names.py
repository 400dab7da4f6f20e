"""The name of a recovery point carries everything that the planner needs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlbak.errors import ObjectDamaged
from sqlbak.model import Point, PointType
from sqlbak.vault import names
from sqlbak.vault.layout import POINT_ID
from sqlbak.vault.names import format_name, new_point_id, parse_name, point_id_instant
from tests.vault.strategies import points

NOON = datetime(2024, 5, 1, 12, 0, 0, 123456, tzinfo=UTC)
POINT = Point(
    id="20240501T120000Z-abcdefghij",
    type=PointType.LOG,
    lineage="3",
    first_lsn=0x1000028,
    last_lsn=0x2000000,
    started_at=NOON,
    finished_at=NOON,
    covers_until=NOON,
)
LONGEST = "ffffffff-ffff-ffff-ffff-ffffffffffff"


@given(points())
def test_a_name_tells_the_whole_point(point: Point) -> None:
    name = format_name(point)
    assert parse_name(name) == point
    assert parse_name(f"items/orders-0123/points/{name}") == point


@given(points())
def test_a_name_fits_into_a_file_name_and_is_plain(point: Point) -> None:
    name = format_name(point)
    assert len(name) <= 240
    assert name.replace("_", "").replace("-", "").replace(".", "").isalnum()
    assert name.startswith(f"{point.id}_")


@pytest.mark.parametrize("kind", PointType)
def test_the_longest_values_of_sql_server_fit(kind: PointType) -> None:
    last = datetime(2200, 1, 1, tzinfo=UTC)
    is_log = kind is PointType.LOG
    point = Point(
        id=POINT.id,
        type=kind,
        lineage=LONGEST,
        first_lineage=LONGEST if is_log else None,
        first_lsn=10**25 - 2,
        last_lsn=10**25 - 1,
        started_at=last,
        finished_at=last,
        reachable_from=None if is_log else last,
        covers_until=last,
        probable_until=last,
        base_id=POINT.id if kind is PointType.DIFFERENTIAL else None,
        is_copy_only=True,
        has_bulk_logged=True,
        size_bytes=2**53,
    )
    assert parse_name(format_name(point)) == point


@given(points(), st.data())
def test_a_flipped_bit_in_a_name_is_found(point: Point, data: st.DataObject) -> None:
    raw = bytearray(format_name(point).encode())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    key = "items/orders-0123/points/" + raw.decode("latin-1")
    with pytest.raises(ObjectDamaged) as caught:
        assert parse_name(key) != point
    assert key in caught.value.message


def test_a_later_versions_letters_are_passed_over() -> None:
    body = format_name(POINT).rpartition("_h")[0] + "_qsomething"
    assert parse_name(f"{body}_h{names.name_checksum(body)}.json") == POINT


@pytest.mark.parametrize(
    ("ours", "other"),
    [
        ("_a1000028", "_a01000028"),
        ("_a1000028", "_a1000028_rx"),
        ("_ln3", "_lw3"),
        ("_tl", "_tf_p0"),
    ],
)
def test_another_spelling_is_refused_even_with_a_right_checksum(ours: str, other: str) -> None:
    body = format_name(POINT).rpartition("_h")[0].replace(ours, other)
    with pytest.raises(ObjectDamaged):
        parse_name(f"{body}_h{names.name_checksum(body)}.json")


@pytest.mark.parametrize("flags", ["q", "bc", "cbq"])
def test_flags_that_are_unknown_are_refused_since_they_may_matter(flags: str) -> None:
    body = format_name(POINT).rpartition("_h")[0] + f"_x{flags}"
    with pytest.raises(ObjectDamaged, match="flags"):
        parse_name(f"{body}_h{names.name_checksum(body)}.json")


@pytest.mark.parametrize(
    "name", ["", ".DS_Store", "notes.json", "20240501T120000Z-abcdefghij_tl.json"]
)
def test_a_foreign_file_is_named(name: str) -> None:
    with pytest.raises(ObjectDamaged, match="items/a/points/"):
        parse_name(f"items/a/points/{name}")


@pytest.mark.parametrize(
    "point",
    [
        replace(POINT, id="latest"),
        replace(POINT, lineage="a_b"),
        replace(POINT, lineage=""),
        replace(POINT, first_lsn=5, last_lsn=4),
        replace(POINT, first_lsn=-1),
        replace(POINT, base_id=POINT.id),
        replace(POINT, reachable_from=NOON),
        replace(POINT, type=PointType.FULL, first_lineage="1"),
        replace(POINT, type=PointType.DIFFERENTIAL, base_id="x"),
        replace(POINT, size_bytes=-1),
        replace(POINT, started_at=NOON.replace(tzinfo=None)),
        replace(POINT, started_at=datetime(1969, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_point_that_cannot_be_is_not_written(point: Point) -> None:
    with pytest.raises(ValueError):
        format_name(point)


def test_point_ids_tell_the_second_in_utc_and_never_collide() -> None:
    berlin = timezone(timedelta(hours=2))
    ids = {new_point_id(NOON.astimezone(berlin)) for _ in range(1000)}
    assert len(ids) == 1000
    assert all(POINT_ID.fullmatch(one) for one in ids)
    assert {point_id_instant(one) for one in ids} == {NOON.replace(microsecond=0)}


def test_point_ids_sort_by_time() -> None:
    later = new_point_id(NOON + timedelta(seconds=1))
    assert new_point_id(NOON) < later
