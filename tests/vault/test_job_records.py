"""The vault tells what ran, newest first."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sqlbak.model import Note, NoteCode
from sqlbak.vault.job_records import (
    JobOutcome,
    JobRecord,
    list_job_names,
    list_jobs,
    remove_jobs_before,
    write_job,
)
from sqlbak.vault.layout import jobs_prefix
from sqlbak.vault.memory_store import MemoryStore
from sqlbak.vault.store import ObjectStore

NOW = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
ITEM = "orders-0123456789abcdef"


def job(number: int) -> JobRecord:
    started_at = NOW + timedelta(minutes=number)
    return JobRecord(
        job_id=f"job-{number}",
        type="log",
        started_at=started_at,
        finished_at=started_at + timedelta(seconds=3),
        outcome=JobOutcome.FAILED if number % 2 else JobOutcome.SUCCEEDED,
        point_id=None if number % 2 else f"20240501T120000Z-aaaaaaaaa{'abcdefgh'[number % 8]}",
        error_code="store_full" if number % 2 else None,
        error_message="no space left" if number % 2 else None,
        slot=started_at,
    )


def test_runs_are_listed_newest_first(store: ObjectStore) -> None:
    for number in (3, 1, 4, 0, 2):
        write_job(store, ITEM, job(number))
    assert list_jobs(store, ITEM, limit=3) == [job(4), job(3), job(2)]
    assert list_jobs(store, ITEM, limit=100) == [job(number) for number in (4, 3, 2, 1, 0)]
    assert list_jobs(store, "other", limit=5) == []


def test_notes_keep_what_programs_decide_by(store: ObjectStore) -> None:
    facts = {"kind": "log", "login": "sa", "device": "NUL", "name": "\udcff \u00e9"}
    notes = (Note(NoteCode.FOREIGN_BACKUP, "another tool", facts), Note(NoteCode.OTHER, "words"))
    record = replace(job(2), notes=notes)
    write_job(store, ITEM, record)
    assert list_jobs(store, ITEM, limit=9) == [record]


@pytest.mark.parametrize(
    ("stored", "notes"),
    [
        (None, ()),
        (["the slot is gone"], (Note(NoteCode.OTHER, "the slot is gone"),)),
        (
            [{"code": "of_tomorrow", "text": "new words", "facts": {"count": 3}}],
            (Note(NoteCode.OTHER, "new words", {"count": "3"}),),
        ),
        ([{"code": "log_missing", "text": "gone"}], (Note(NoteCode.LOG_MISSING, "gone"),)),
    ],
)
def test_notes_of_other_versions_can_be_read(stored: Any, notes: tuple[Note, ...]) -> None:
    store = MemoryStore()
    write_job(store, ITEM, job(2))
    (name,) = list_job_names(store, ITEM)
    document = json.loads(store.get(name.key))
    document["notes"] = stored
    if stored is None:
        del document["notes"]
    store.replace(name.key, json.dumps(document).encode(), if_match=store.head(name.key).etag)
    assert list_jobs(store, ITEM, limit=9) == [replace(job(2), notes=notes)]


def test_old_records_can_be_removed(store: ObjectStore) -> None:
    for number in range(5):
        write_job(store, ITEM, job(number))
    assert remove_jobs_before(store, ITEM, NOW + timedelta(minutes=3)) == 3
    assert list_jobs(store, ITEM, limit=9) == [job(4), job(3)]


def test_writing_a_record_again_changes_nothing(store: ObjectStore) -> None:
    write_job(store, ITEM, job(1))
    write_job(store, ITEM, job(1))
    assert list_jobs(store, ITEM, limit=9) == [job(1)]


def test_a_foreign_file_is_passed_over_and_left_alone(store: ObjectStore) -> None:
    key = f"{jobs_prefix(ITEM)}notes.txt"
    store.put(key, b"")
    write_job(store, ITEM, job(1))
    assert list_jobs(store, ITEM, limit=9) == [job(1)]
    remove_jobs_before(store, ITEM, job(1).started_at + timedelta(days=1))
    assert [info.key for info in store.list(jobs_prefix(ITEM))] == [key]


@pytest.mark.parametrize("job_id", ["", "a/b", "a.b", "-x"])
def test_a_job_id_is_plain(store: ObjectStore, job_id: str) -> None:
    with pytest.raises(ValueError, match="job id"):
        write_job(store, ITEM, JobRecord(job_id, "log", NOW, NOW, JobOutcome.SKIPPED))
