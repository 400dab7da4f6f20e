"""What a log backup does with log that was shipped ahead of it, at whatever call it dies."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import combinations
from typing import Any, cast

import pytest

from sqlbak.engines.port import Engine, ShippedPiece
from sqlbak.errors import LogChainBroken, LogRewritten, ServerUnreachable
from sqlbak.jobs.sealing import require_same_log, seal
from sqlbak.jobs.shipping import advanced_anchor
from sqlbak.model import LogPosition, Point, PointType, ShippedLog
from sqlbak.restore.planner import LATEST, plan
from sqlbak.restore.windows import windows
from sqlbak.vault.memory_store import MemoryStore
from sqlbak.vault.tail import list_tail, put_piece
from sqlbak.vault.vault import Vault, create_vault
from tests.jobs.test_log_chain import point
from tests.vault.making import ITEM, NOW, RESULT, Job

RUN = "0123456789ab"


def add(vault: Vault, kind: PointType, first: int, last: int, lineage: str = "1") -> Point:
    """A committed recovery point."""
    job = Job(vault.store)
    result = replace(
        RESULT,
        type=kind,
        lineage=lineage,
        first_lsn=first,
        last_lsn=last,
        reachable_from=NOW if kind is PointType.FULL else None,
        forks=(),
        histories={},
    )
    with job.writer:
        return job.commit(result)


def ship(
    vault: Vault,
    anchor: Point,
    first: int,
    last: int,
    *,
    minute: int = 1,
) -> ShippedLog:
    at = NOW + timedelta(minutes=minute)
    return put_piece(
        vault.store,
        ITEM.id,
        ShippedPiece(first, last, bytes(last - first), at, at, {"log_tail": None}),
        lineage="1",
        run=RUN,
        anchor_id=anchor.id,
        facts={},
    )


def left(vault: Vault) -> list[tuple[int, int]]:
    return [(piece.first_lsn, piece.last_lsn) for piece in list_tail(vault.store, ITEM.id).pieces]


@pytest.fixture
def vault() -> Vault:
    return create_vault(MemoryStore(), redundancy="local", now=NOW)


class Server:
    """An engine that only knows whether its log is the one that was shipped."""

    def __init__(self, answer: bool | Exception | None) -> None:
        self.answer = answer
        self.asked: list[LogPosition] = []

    def is_same_log(self, position: LogPosition, facts: Any) -> bool | None:
        assert "log_tail" in facts
        self.asked.append(position)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    @property
    def engine(self) -> Engine:
        return cast("Engine", self)


def test_only_what_the_log_backup_holds_is_removed(vault: Vault) -> None:
    full = add(vault, PointType.FULL, 0, 100)
    for first, last in ((100, 150), (150, 150), (150, 190), (190, 210), (210, 230)):
        ship(vault, full, first, last)
    sealing = add(vault, PointType.LOG, 100, 200)
    assert seal(vault, ITEM, sealing) == 3
    assert left(vault) == [(190, 210), (210, 230)]
    following = add(vault, PointType.LOG, 200, 230)
    assert seal(vault, ITEM, following) == 2
    assert left(vault) == []


def test_log_of_another_history_seals_nothing(vault: Vault) -> None:
    full = add(vault, PointType.FULL, 0, 100)
    ship(vault, full, 100, 150)
    healed = add(vault, PointType.FULL, 100, 120)
    assert seal(vault, ITEM, add(vault, PointType.LOG, healed.last_lsn, 900)) == 0
    assert seal(vault, ITEM, add(vault, PointType.LOG, 100, 900, lineage="2")) == 0
    assert left(vault) == [(100, 150)]


def test_whichever_pieces_a_crash_leaves_the_same_instants_stay_reachable(vault: Vault) -> None:
    full = add(vault, PointType.FULL, 0, 100)
    row = [
        ship(vault, full, first, last, minute=minute)
        for first, last, minute in ((100, 150, 1), (150, 190, 2), (190, 210, 3))
    ]
    sealing = add(vault, PointType.LOG, 100, 200)
    before = windows(vault.catalog(ITEM))
    assert before[-1].end == NOW + timedelta(minutes=3)
    for count in range(3):
        for gone in combinations(row[:2], count):
            crashed = create_vault(MemoryStore(), redundancy="local", now=NOW)
            for info in vault.store.list("items/"):
                if not any(piece.name in info.key for piece in gone):
                    crashed.store.put(info.key, vault.store.get(info.key))
            assert windows(crashed.catalog(ITEM)) == before
            steps = plan(crashed.catalog(ITEM), LATEST).steps
            assert [step.id for step in steps[:2]] == [full.id, sealing.id]
            assert (steps[2].first_lsn, steps[2].last_lsn) == (200, 210)
            assert seal(crashed, ITEM, sealing) == 2 - count
            assert left(crashed) == [(190, 210)]
            assert windows(crashed.catalog(ITEM)) == before


def test_a_server_that_left_what_was_shipped_is_told_from_one_that_did_not(vault: Vault) -> None:
    full = add(vault, PointType.FULL, 0, 100)
    ship(vault, full, 100, 150)
    same, strayed = Server(True), Server(False)
    notes: list[str] = []
    require_same_log(vault, ITEM, same.engine, full, notes)
    assert same.asked == [LogPosition("1", 150)]
    with pytest.raises(LogRewritten, match="put back to an older state"):
        require_same_log(vault, ITEM, strayed.engine, full, notes)
    assert notes == []
    assert left(vault) == [(100, 150)]


def test_a_server_that_cannot_tell_stops_no_backup(vault: Vault) -> None:
    full = add(vault, PointType.FULL, 0, 100)
    ship(vault, full, 100, 150)
    notes: list[str] = []
    require_same_log(vault, ITEM, Server(None).engine, full, notes)
    assert notes == []
    require_same_log(vault, ITEM, Server(ServerUnreachable("away")).engine, full, notes)
    assert len(notes) == 1


FULL = point(PointType.FULL, 0, 100)


def test_an_anchor_moves_to_the_newest_log_backup_within_what_was_shipped() -> None:
    logs = [point(PointType.LOG, 100, 200), point(PointType.LOG, 200, 300)]
    assert advanced_anchor([FULL, *logs], FULL, 150) is FULL
    assert advanced_anchor([FULL, *logs], FULL, 250) is logs[0]
    assert advanced_anchor([FULL, *logs], FULL, 300) is logs[1]
    assert advanced_anchor([FULL, point(PointType.LOG, 300, 400, "2")], FULL, 999) is FULL


def test_log_in_the_vault_that_goes_on_from_elsewhere_ends_shipping() -> None:
    with pytest.raises(LogChainBroken):
        advanced_anchor([FULL, point(PointType.LOG, 120, 200)], FULL, 300)
