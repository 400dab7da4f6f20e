"""Anybody who reaches the vault may ask a running job to end; nothing of the wish stays behind."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from sqlbak.model import PointType
from sqlbak.vault.cancelled_slots import TypeSlot, cancel_slots, list_cancelled_slots
from sqlbak.vault.layout import cancel_key, cancelled_prefix, running_prefix
from sqlbak.vault.memory_store import MemoryStore
from sqlbak.vault.running import (
    Cancellation,
    ask_to_cancel,
    list_running,
    read_cancellation,
    write_running,
)
from sqlbak.vault.store import ObjectStore
from sqlbak.vault.sweep import sweep
from tests.vault.making import ITEM, NOW, Job, keys

WISH = Cancellation(NOW, "ops@desk")


class Ending(MemoryStore):
    """Does ``then`` right after an object was put."""

    def put(self, key: str, data: bytes, *, if_absent: bool = True):  # type: ignore[no-untyped-def]
        info = super().put(key, data, if_absent=if_absent)
        if key.endswith(".cancel"):
            self.then()
        return info

    def then(self) -> None:
        raise AssertionError("replaced by the test")


def test_a_wish_is_seen_by_the_job_and_goes_with_it(store: ObjectStore) -> None:
    job = Job(store)
    with job.writer:
        assert read_cancellation(store, ITEM.id, job.record.job_id) is None
        assert ask_to_cancel(store, ITEM.id, job.record.job_id, WISH)
        assert ask_to_cancel(store, ITEM.id, job.record.job_id, Cancellation(NOW, "another"))
        assert read_cancellation(store, ITEM.id, job.record.job_id) == WISH
        assert [one.job_id for one in list_running(store, ITEM.id)[0]] == [job.record.job_id]
    assert keys(store, running_prefix(ITEM.id)) == []


def test_a_job_that_commits_first_is_not_harmed_and_nothing_stays() -> None:
    store = MemoryStore()
    job = Job(store)
    with job.writer:
        job.fill()
        assert ask_to_cancel(store, ITEM.id, job.record.job_id, WISH)
        job.commit()
    assert keys(store, running_prefix(ITEM.id)) == []


def test_a_job_that_has_ended_cannot_be_asked_any_more() -> None:
    store = MemoryStore()
    assert not ask_to_cancel(store, ITEM.id, "no-such-job", WISH)
    assert keys(store) == []


def test_a_job_that_ends_while_it_is_asked_leaves_no_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Ending()
    job = Job(store)
    job.begin()
    # The job removes what lies beside its record just before the wish is put.
    monkeypatch.setattr(
        store, "then", lambda: store.delete([f"{running_prefix(ITEM.id)}{job.record.job_id}.json"])
    )
    assert not ask_to_cancel(store, ITEM.id, job.record.job_id, WISH)
    assert keys(store, running_prefix(ITEM.id)) == []


def test_whoever_ends_a_job_cancels_the_slots_that_it_serves(store: ObjectStore) -> None:
    slots = (TypeSlot(PointType.LOG, NOW), TypeSlot(PointType.FULL, NOW))
    job = Job(store)
    job.record = replace(job.record, slots=slots)
    write_running(store, ITEM.id, job.record)
    assert list_running(store, ITEM.id)[0] == [job.record]
    assert list_cancelled_slots(store, ITEM.id) == ()
    for who in ("ops@desk", "another"):
        assert ask_to_cancel(store, ITEM.id, job.record.job_id, Cancellation(NOW, who))
    # Whether the job lives to see it or not.
    sweep(store, ITEM.id, is_live=lambda _record: False, now=NOW)
    assert set(list_cancelled_slots(store, ITEM.id)) == set(slots)
    assert list_cancelled_slots(store, "other") == ()
    (first, _) = keys(store, cancelled_prefix(ITEM.id))
    assert json.loads(store.get(first))["asked_by"] == "ops@desk"


def test_a_job_that_nobody_scheduled_has_no_slot_to_cancel() -> None:
    store = MemoryStore()
    job = Job(store)
    job.begin()
    assert ask_to_cancel(store, ITEM.id, job.record.job_id, WISH)
    assert keys(store, cancelled_prefix(ITEM.id)) == []


def test_what_is_no_record_of_a_cancelled_slot_is_passed_over() -> None:
    store = MemoryStore()
    slot = TypeSlot(PointType.LOG, NOW + timedelta(microseconds=7))
    cancel_slots(store, ITEM.id, [slot], asked_at=NOW, asked_by="ops")
    for name in (
        "notes.txt",
        "verify-20240501T120000.000000Z.json",
        "log-20249901T120000.000000Z.json",
    ):
        store.put(f"{cancelled_prefix(ITEM.id)}{name}", b"")
    assert list_cancelled_slots(store, ITEM.id) == (slot,)


@pytest.mark.parametrize("is_live", [True, False])
def test_a_sweep_clears_wishes_of_dead_jobs_and_of_none_only(is_live: bool) -> None:
    store = MemoryStore()
    job = Job(store)
    job.begin()
    ask_to_cancel(store, ITEM.id, job.record.job_id, WISH)
    store.put(cancel_key(ITEM.id, "gone"), b"{}")
    sweep(store, ITEM.id, is_live=lambda _record: is_live, now=NOW)
    left = {
        key.removeprefix(running_prefix(ITEM.id)) for key in keys(store, running_prefix(ITEM.id))
    }
    mine = {f"{job.record.job_id}.json", f"{job.record.job_id}.cancel"}
    assert left == (mine if is_live else set())
