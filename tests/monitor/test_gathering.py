"""What is known of a fleet, from its vaults alone and where servers are away."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from sqlbak.model import PointType
from sqlbak.monitor import gathering
from sqlbak.monitor.gathering import Gatherer
from sqlbak.monitor.status import Health, status_of
from sqlbak.monitor.watched import Watched
from sqlbak.vault.job_records import JobOutcome, write_job
from sqlbak.vault.layout import data_prefix, points_prefix
from sqlbak.vault.names import format_name
from tests.monitor.fleets import Place
from tests.monitor.watching import HOUR, MINUTE, NOON, failure, served

FULL, LOG = PointType.FULL, PointType.LOG


def gathered(place: Place, *instances: str, **options: bool) -> dict[str, Watched]:
    with place.fleet(*instances) as fleet:
        found = Gatherer(fleet).gather(None, lambda: NOON, asks_servers=False, **options)
    return {one.name: one for one in found.items}


def test_every_configured_item_is_found_and_what_nobody_configured_is_named(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.add("orders", served(NOON))
    place.add("gone", served(NOON))
    with place.fleet("orders", "new") as fleet:
        found = Gatherer(fleet).gather(None, lambda: NOON, asks_servers=False)
        one = Gatherer(fleet).gather("orders", lambda: NOON, asks_servers=False)
    health = {item.name: status_of(item, NOON).health for item in found.items}
    assert health == {"orders": Health.HEALTHY, "new": Health.UNPROTECTED}
    assert [stored.item.name for stored in found.unwatched] == ["gone"]
    assert ([item.name for item in one.items], one.unwatched) == (["orders"], ())


def test_of_two_items_of_one_name_the_one_in_use_counts(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.add("orders", served(NOON - 30 * HOUR), identity="before")
    newer = place.add("orders", served(NOON), identity="after")
    assert gathered(place, "orders")["orders"].item_id == newer.id


def test_only_failures_that_nothing_made_up_for_count(tmp_path: Path) -> None:
    place = Place(tmp_path)
    item = place.add("orders", served(NOON))
    with place.vault() as vault:
        for number, (kind, at) in enumerate(
            [(LOG, NOON - 20 * MINUTE), (FULL, NOON - 10 * MINUTE), (FULL, NOON - 5 * HOUR)]
        ):
            write_job(vault.store, item.id, replace(failure(kind, at), job_id=f"j{number}"))
        done = replace(
            failure(LOG, NOON), job_id="ok", outcome=JobOutcome.SUCCEEDED, error_code=None
        )
        write_job(vault.store, item.id, done)
    # The log succeeded since, and so did yesterday's full; names alone tell that the third is old.
    at_noon = gathered(place, "orders")["orders"]
    assert at_noon.failures == ()
    with place.vault() as vault:
        late = replace(failure(FULL, NOON + MINUTE), job_id="late")
        write_job(vault.store, item.id, late)
    (found,) = gathered(place, "orders")["orders"].failures
    assert found.job_id == "late"


def test_while_one_type_fails_what_others_made_up_for_since_does_not_count(tmp_path: Path) -> None:
    place = Place(tmp_path)
    points = served(NOON)
    last_night = [p for p in points if p.type is FULL][-1]
    item = place.add("orders", [point for point in points if point is not last_night])
    with place.vault() as vault:
        write_job(vault.store, item.id, replace(failure(FULL, NOON - 10 * HOUR), job_id="full"))
        write_job(vault.store, item.id, replace(failure(LOG, NOON - 9 * HOUR), job_id="log"))
    assert [one.job_id for one in gathered(place, "orders")["orders"].failures] == ["full"]


def test_a_vault_that_cannot_be_read_is_part_of_what_is_known(tmp_path: Path) -> None:
    place = Place(tmp_path)
    item = place.add("orders", served(NOON))
    place.add("fine", served(NOON))
    name = next(iter((tmp_path / "vault" / points_prefix(item.id)).iterdir()))
    name.rename(name.with_name(name.name.replace("_n", "_m")))
    found = gathered(place, "orders", "fine")
    assert status_of(found["orders"], NOON).health is Health.UNREACHABLE
    assert status_of(found["fine"], NOON).health is Health.HEALTHY


def test_a_server_that_is_away_leaves_what_the_vault_knows(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.add("orders", served(NOON))
    with place.fleet("orders") as fleet:
        (item,) = Gatherer(fleet).gather(None, lambda: NOON).items
    status = status_of(item, NOON)
    assert status.health is Health.UNREACHABLE
    assert status.newest_restorable == NOON
    assert not status.server_answers


def test_logs_that_are_kept_no_longer_are_not_remembered(tmp_path: Path) -> None:
    """Nothing of them is told, and of two thousand databases they would be many."""
    place = Place(tmp_path)
    points = served(NOON)
    place.add("orders", points)
    held = gathered(place, "orders")["orders"].holdings.log_seconds
    assert len(held) == sum(point.type is LOG for point in points) > 0
    with place.fleet("orders") as fleet:
        later = Gatherer(fleet).gather(None, lambda: NOON + 400 * 24 * HOUR, asks_servers=False)
    assert list(later.items[0].holdings.log_seconds) == []


def test_what_has_not_changed_is_not_read_again_and_what_has_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path)
    points = served(NOON)
    item = place.add("orders", points[:-1])
    computed: list[int] = []

    def counted(catalog, **options):  # type: ignore[no-untyped-def]
        computed.append(len(catalog.points))
        return holdings_of(catalog, **options)

    holdings_of = gathering.holdings_of
    monkeypatch.setattr(gathering, "holdings_of", counted)
    with place.fleet("orders") as fleet:
        gatherer = Gatherer(fleet, remembers=True)
        for _ in range(3):
            gatherer.gather(None, lambda: NOON, asks_servers=False)
        assert len(computed) == 1
        with place.vault() as vault:
            vault.store.put(points_prefix(item.id) + format_name(points[-1]), b"")
        (again,) = gatherer.gather(None, lambda: NOON, asks_servers=False).items
    assert len(computed) == 2
    assert again.holdings.newest == NOON


def test_payload_that_is_gone_is_told_until_it_is_back(tmp_path: Path) -> None:
    place = Place(tmp_path)
    points = served(NOON)
    item = place.add("orders", points)
    payload = tmp_path / "vault" / data_prefix(item.id, points[9].id)
    with place.fleet("orders") as fleet:
        gatherer = Gatherer(fleet, remembers=True)

        def told() -> list[str]:
            (seen,) = gatherer.gather(None, lambda: NOON, asks_servers=False).items
            status = status_of(seen, NOON)
            assert status.health is (Health.AT_RISK if status.concerns else Health.HEALTHY)
            return [one.what for one in status.concerns]

        assert told() == []
        away = payload.rename(tmp_path / "away")
        looks = 1
        while not (what := told()):
            looks += 1
        assert looks <= 30
        assert points[9].id in what[0]
        away.rename(payload)
        assert told() == []
        (volume,) = payload.iterdir()
        os.truncate(volume, points[9].size_bytes - 1)
        (seen,) = Gatherer(fleet).gather(None, lambda: NOON, asks_servers=False).items
        assert [point.id for point in seen.incomplete] == [points[9].id]


def test_looking_at_a_vault_costs_listings_and_reads_nothing_where_all_is_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path)
    place.add("orders", served(NOON))
    with place.fleet("orders") as fleet:
        gatherer = Gatherer(fleet)
        gatherer.gather(None, lambda: NOON, asks_servers=False)
        vault = fleet.existing_vault("main")
        assert vault is not None

        def refuse(key: str) -> bytes:
            raise AssertionError(f"read {key}")

        monkeypatch.setattr(vault.store, "get", refuse, raising=False)
        (item,) = gatherer.gather(None, lambda: NOON, asks_servers=False).items
    assert status_of(item, NOON).health is Health.HEALTHY
