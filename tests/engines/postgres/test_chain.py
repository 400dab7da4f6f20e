"""What a restore demands of its chain before it writes anything."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sqlbak.engines.port import RestoreStep
from sqlbak.engines.postgres.chain import Chain, checked_chain
from sqlbak.errors import FeatureUnsupported, InstantUnreachable, RestoreFailed
from sqlbak.model import Point, PointType
from tests.engines.postgres.restores import MemorySource

_START = datetime(2026, 5, 1, tzinfo=UTC)
_SEGMENT = 1 << 20


def _at(minutes: int) -> datetime:
    return _START + timedelta(minutes=minutes)


def _base(kind: PointType, name: str, lsn: int, minutes: int, **facts: Any) -> RestoreStep:
    """A full or differential that begins 10 bytes into a segment and has 100 bytes of log."""
    start, last = lsn + 10, lsn + 100
    all_facts = {
        "system_identifier": "7",
        "server_version_num": 170002,
        "wal_segment_size": _SEGMENT,
        "timeline": 1,
        "start_lsn": start,
        "wal_first_lsn": lsn,
        "tablespaces": [],
        **facts,
    }
    streams = dict.fromkeys(("base.tar", "backup_manifest"), b"x")
    for tablespace in all_facts["tablespaces"]:
        streams[f"{tablespace['oid']}.tar"] = b"x"
    base_id = (facts.get("differential") or {}).get("base_id")
    point = Point(
        name, kind, "1", start, last, _at(minutes - 1), _at(minutes), _at(minutes), _at(minutes)
    )
    source = MemorySource({**streams, "wal": bytes(100)})
    return RestoreStep(dataclasses.replace(point, base_id=base_id), all_facts, source)


def _made_on(full: RestoreStep, **changes: Any) -> dict[str, Any]:
    return {
        "method": "pages",
        "base_id": full.point.id,
        "base_start_lsn": full.facts["start_lsn"],
        "base_timeline": 1,
        **changes,
    }


def _log(first: int, last: int, minutes: int) -> RestoreStep:
    point = Point(
        "log", PointType.LOG, "1", first, last, _at(0), _at(minutes), covers_until=_at(minutes)
    )
    facts = {"system_identifier": "7", "server_version_num": 170002, "wal_segment_size": _SEGMENT}
    return RestoreStep(point, facts, MemorySource({"wal": bytes(last - first)}))


_FULL = _base(PointType.FULL, "full", _SEGMENT, 10)
_LATER = 50 * _SEGMENT
_DIFFERENTIAL = _base(
    PointType.DIFFERENTIAL, "differential", _LATER, 60, differential=_made_on(_FULL)
)
_LOG = _log(_LATER + 100, _LATER + 300, 90)


def _checked(*steps: RestoreStep, to: int | None = None) -> Chain:
    return checked_chain(steps, stop_at=None if to is None else _at(to), lineage="1", histories={})


def test_behind_a_differential_the_log_of_the_full_is_not_needed() -> None:
    chain = _checked(_FULL, _DIFFERENTIAL, _LOG, to=70)
    assert (chain.log.first_lsn, chain.log.last_lsn) == (_LATER, _LATER + 300)
    assert (chain.full, chain.base, chain.logs) == (_FULL, _DIFFERENTIAL, (_LOG,))


def test_tablespaces_are_those_of_the_differential() -> None:
    spaces = [{"oid": 9, "location": "/srv/nine"}]
    added = _base(
        PointType.DIFFERENTIAL,
        "differential",
        _LATER,
        60,
        differential=_made_on(_FULL),
        tablespaces=spaces,
    )
    assert [t.oid for t in _checked(_FULL, added).tablespaces] == [9]
    dropped = _base(PointType.FULL, "full", _SEGMENT, 10, tablespaces=spaces)
    assert _checked(dropped, _DIFFERENTIAL).tablespaces == ()


@pytest.mark.parametrize("to", [10, 59])
def test_an_instant_before_the_differential_s_end_is_refused(to: int) -> None:
    with pytest.raises(InstantUnreachable) as refused:
        _checked(_FULL, _DIFFERENTIAL, _LOG, to=to)
    assert refused.value.nearest == (_at(60), _at(90))


@pytest.mark.parametrize(
    "change",
    [{"base_id": "other"}, {"base_start_lsn": 3}, {"base_timeline": 2}, {"base_id": None}],
)
def test_a_differential_of_another_full_is_refused(change: dict[str, Any]) -> None:
    made = _made_on(_FULL, **change)
    other = _base(PointType.DIFFERENTIAL, "differential", _LATER, 60, differential=made)
    with pytest.raises(RestoreFailed, match="not the full"):
        _checked(_FULL, other)


def test_a_differential_by_an_unknown_method_is_refused() -> None:
    made = _made_on(_FULL, method="magic")
    unknown = _base(PointType.DIFFERENTIAL, "differential", _LATER, 60, differential=made)
    with pytest.raises(FeatureUnsupported, match="'magic'"):
        _checked(_FULL, unknown)


@pytest.mark.parametrize(
    "steps",
    [
        (_DIFFERENTIAL, _LOG),
        (_FULL, _DIFFERENTIAL, _DIFFERENTIAL),
        (_FULL, _LOG, _DIFFERENTIAL),
        (_FULL, _FULL),
        (_LOG,),
    ],
)
def test_steps_in_another_order_are_refused(steps: tuple[RestoreStep, ...]) -> None:
    with pytest.raises(RestoreFailed, match="exactly one full"):
        _checked(*steps)


def test_log_missing_behind_a_differential_is_refused() -> None:
    with pytest.raises(RestoreFailed, match="is missing"):
        _checked(_FULL, _DIFFERENTIAL, _log(_LATER + 101, _LATER + 300, 90))
