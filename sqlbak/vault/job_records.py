"""One small record for each run of a job, success or failure, so that the vault itself tells what
happened. Names begin with a number that falls as time goes on: a listing gives the newest first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from typing import Any

from sqlbak.errors import ObjectNotFound
from sqlbak.model import Note, NoteCode
from sqlbak.vault.documents import Fields, decode, encode, instant_text, put_once
from sqlbak.vault.layout import JOB_ID, jobs_prefix
from sqlbak.vault.store import ObjectStore

__all__ = [
    "JobName",
    "JobOutcome",
    "JobRecord",
    "list_job_names",
    "list_jobs",
    "note_document",
    "read_job",
    "remove_jobs_before",
    "write_job",
]

_LAST_SECOND = 9_999_999_999
_NAME = re.compile(r"([0-9]{10})-[0-9]{8}T[0-9]{6}Z-([A-Za-z0-9-]+)\.json", re.ASCII)


class JobOutcome(StrEnum):
    """How a run ended. CANCELLED: somebody asked this very run to end."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One run.

    Attributes:
        job_id: unique in the vault; as in the running record.
        type: what the job does: ``full``, ``log``, ``verify`` …
        started_at, finished_at: on the clock of the machine that ran it.
        outcome: how it ended.
        point_id: the recovery point that it made.
        error_code, error_message: of the error that ended it; never holds a secret.
        slot: the scheduled instant that it belongs to; None: it was asked for by hand.
        notes: what is worth knowing of it, as far as it was known when it ended.
    """

    job_id: str
    type: str
    started_at: datetime
    finished_at: datetime
    outcome: JobOutcome
    point_id: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    slot: datetime | None = None
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class JobName:
    """What a listing tells of one run without reading its record.

    Attributes:
        key: of the record.
        job_id: as in the record.
        started_at: to the second, UTC.
    """

    key: str
    job_id: str
    started_at: datetime


def note_document(note: Note) -> dict[str, Any]:
    """One note as records and JSON show it."""
    return {"code": note.code.value, "text": note.text, "facts": dict(note.facts)}


def write_job(store: ObjectStore, item_id: str, record: JobRecord) -> None:
    """Keep the record of a run that has ended."""
    if not JOB_ID.fullmatch(record.job_id):
        raise ValueError(f"{record.job_id!r} cannot be a job id")
    document = {
        "job_id": record.job_id,
        "type": record.type,
        "started_at": instant_text(record.started_at),
        "finished_at": instant_text(record.finished_at),
        "outcome": record.outcome.value,
        "point_id": record.point_id,
        "error_code": record.error_code,
        "error_message": record.error_message,
        "slot": instant_text(record.slot),
        "notes": [note_document(note) for note in record.notes],
    }
    started_at = record.started_at.astimezone(UTC)
    name = (
        f"{_LAST_SECOND - int(started_at.timestamp()):010d}-{started_at:%Y%m%dT%H%M%SZ}-"
        f"{record.job_id}.json"
    )
    put_once(store, jobs_prefix(item_id) + name, encode(document))


def list_job_names(store: ObjectStore, item_id: str) -> Iterator[JobName]:
    """All runs, newest first, from a listing that goes as far as it is read."""
    prefix = jobs_prefix(item_id)
    for info in store.list(prefix):
        match = _match(info.key, prefix)
        if match is not None:
            started_at = datetime.fromtimestamp(_LAST_SECOND - int(match[1]), UTC)
            yield JobName(info.key, match[2], started_at)


def read_job(store: ObjectStore, name: JobName) -> JobRecord | None:
    """One record; None when it was removed after the listing."""
    try:
        return _decode(name.key, store.get(name.key))
    except ObjectNotFound:
        return None


def list_jobs(store: ObjectStore, item_id: str, *, limit: int) -> list[JobRecord]:
    """The newest ``limit`` runs, newest first (by the second in which they started)."""
    return list(islice(_jobs(store, item_id), limit))


def remove_jobs_before(store: ObjectStore, item_id: str, instant: datetime) -> int:
    """Delete the records of runs that started before the second of ``instant`` (aware); returns
    how many."""
    prefix = jobs_prefix(item_id)
    oldest_kept = _LAST_SECOND - int(instant.timestamp())
    keys = [
        info.key
        for info in store.list(prefix)
        if (match := _match(info.key, prefix)) and int(match[1]) > oldest_kept
    ]
    store.delete(keys)
    return len(keys)


def _jobs(store: ObjectStore, item_id: str) -> Iterator[JobRecord]:
    for name in list_job_names(store, item_id):
        record = read_job(store, name)
        if record is not None:
            yield record


def _match(key: str, prefix: str) -> re.Match[str] | None:
    """The parts of a record's name; None for somebody else's file."""
    return _NAME.fullmatch(key.removeprefix(prefix))


def _decode(key: str, data: bytes) -> JobRecord:
    fields = decode(key, data)
    try:
        outcome = JobOutcome(fields.text("outcome"))
    except ValueError as error:
        raise fields.wrong("outcome", "an outcome that this version knows") from error
    return JobRecord(
        job_id=fields.text("job_id"),
        type=fields.text("type"),
        started_at=fields.instant("started_at"),
        finished_at=fields.instant("finished_at"),
        outcome=outcome,
        point_id=fields.optional_text("point_id"),
        error_code=fields.optional_text("error_code"),
        error_message=fields.optional_text("error_message"),
        slot=fields.optional_instant("slot"),
        notes=tuple(_note(fields, one) for one in fields.values("notes")),
    )


def _note(fields: Fields, stored: Any) -> Note:
    """One note; a bare sentence, or one whose code this version does not know, has no meaning
    beside its words."""
    if isinstance(stored, str):
        return Note(NoteCode.OTHER, stored)
    if not isinstance(stored, dict):
        raise fields.wrong("notes", "a list of notes")
    note = Fields(fields.key, stored, "notes.")
    try:
        code = NoteCode(note.text("code"))
    except ValueError:
        code = NoteCode.OTHER
    facts = stored.get("facts") or {}
    if not isinstance(facts, dict):
        raise note.wrong("facts", "an object")
    return Note(code, note.text("text"), {str(name): str(facts[name]) for name in facts})
