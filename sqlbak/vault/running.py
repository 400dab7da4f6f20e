"""Jobs under way, and how it is decided whether a recovery point is committed or dead.

A backup that another process's clean-up deletes while it is written, or a manifest whose payload
was swept away, is the worst that a vault can do. So nothing here rests on clocks or on a lease
being held at the right moment; one object that is written once decides. With J a job, S a sweep:

1. J writes its running record before the first payload byte.
2. To commit, J seals its payload, checks its lease, and puts the *verdict* if it is absent. The
   verdict's content is the whole manifest. To clear away J, S puts the verdict ``dead`` if it is
   absent. The store lets exactly one of them win.
3. J won: the point is committed. J makes sure that its running record is still there, puts the
   manifest under its name, and deletes verdict and running record. If J dies or loses its lease
   on the way, S does the same for it (rolls forward), and both at once do no harm.
4. S won: J can never commit. S looks once more for the manifest (J may have finished before S put
   its verdict), then deletes payload, running record and verdict, in this order.

Why J looks at its running record after it won: S deletes that record only after a decision, and
the verdict only after the record. A verdict put when the record is gone came after S had finished
and means nothing; if S had rolled forward instead, the manifest is there, and J sees it. A
verdict without its running record is therefore always refuse and can be deleted.

Anybody who reaches the vault may ask J to end, by a third object that is written once. J looks for
it now and then; it decides nothing, and whoever removes the running record removes it too. That J
is not begun again for its slot is kept elsewhere (vault/cancelled_slots.py).

The one thing left to assume: no process sleeps between two of these calls for as long as a
committed point lives (retention and soft delete together).
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from sqlbak.errors import ObjectNotFound, PreconditionFailed
from sqlbak.model import PointType
from sqlbak.vault.cancelled_slots import TypeSlot, cancel_slots
from sqlbak.vault.documents import Fields, decode, encode, instant_text, put_once, same_or_put
from sqlbak.vault.layout import (
    JOB_ID,
    POINT_ID,
    cancel_key,
    point_key,
    points_prefix,
    running_key,
    running_prefix,
    trash_prefix,
    verdict_key,
)
from sqlbak.vault.manifest import decode_manifest
from sqlbak.vault.store import ObjectStore

__all__ = [
    "Cancellation",
    "RunningRecord",
    "Verdict",
    "ask_to_cancel",
    "has_manifest",
    "is_running",
    "list_running",
    "publish",
    "put_commit_verdict",
    "put_dead_verdict",
    "read_cancellation",
    "remove_running",
    "write_running",
]

DEAD = encode({"kind": "verdict", "verdict": "dead"})


@dataclass(frozen=True, slots=True)
class RunningRecord:
    """A job that is under way, or that died.

    Attributes:
        job_id: unique in the vault; ``[A-Za-z0-9-]+``.
        point_id: the recovery point that it makes.
        started_at: on the clock of the job's machine; for showing.
        host, pid: where it runs, for people.
        lease: the name of the lease that it holds (vault/lease.py).
        grant: the id of that lease's grant: whoever holds another has outlived the job.
        type: what the job does, as its job record will say it; None: an older version wrote it.
        slots: what nothing else is taken for when it is cancelled; none when it was asked for by
            hand.
    """

    job_id: str
    point_id: str
    started_at: datetime
    host: str
    pid: int
    lease: str
    grant: str
    type: str | None = None
    slots: tuple[TypeSlot, ...] = ()


@dataclass(frozen=True, slots=True)
class Cancellation:
    """That somebody asked a running job to end: when, on their clock, and who, for people."""

    asked_at: datetime
    asked_by: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision over a job. ``manifest``: its bytes when committed; None: dead."""

    manifest: bytes | None


def write_running(store: ObjectStore, item_id: str, record: RunningRecord) -> None:
    """Tell the vault that the job begins. PreconditionFailed when the job id was used before."""
    if not JOB_ID.fullmatch(record.job_id):
        raise ValueError(f"{record.job_id!r} cannot be a job id")
    if not POINT_ID.fullmatch(record.point_id):
        raise ValueError(f"{record.point_id!r} is no point id")
    document = {
        "job_id": record.job_id,
        "point_id": record.point_id,
        "started_at": instant_text(record.started_at),
        "host": record.host,
        "pid": record.pid,
        "lease": record.lease,
        "grant": record.grant,
        "type": record.type,
        "slots": [
            {"type": slot.type.value, "slot": instant_text(slot.instant)} for slot in record.slots
        ],
    }
    put_once(store, running_key(item_id, record.job_id), encode(document))


def remove_running(store: ObjectStore, item_id: str, job_id: str) -> None:
    """Forget the job: its point is committed or cleared away. The running record goes last, so
    that a crash in between leaves something that the sweep settles."""
    store.delete([verdict_key(item_id, job_id), cancel_key(item_id, job_id)])
    store.delete([running_key(item_id, job_id)])


def is_running(store: ObjectStore, item_id: str, job_id: str) -> bool:
    """Whether the job's running record is there."""
    try:
        store.head(running_key(item_id, job_id))
    except ObjectNotFound:
        return False
    return True


def ask_to_cancel(store: ObjectStore, item_id: str, job_id: str, wish: Cancellation) -> bool:
    """Ask a running job to end, and cancel the slots that it serves; False when it has ended by
    now. Asking twice is as good as once."""
    key = cancel_key(item_id, job_id)
    document = {
        "kind": "cancellation",
        "asked_at": instant_text(wish.asked_at),
        "asked_by": wish.asked_by,
    }
    running = running_key(item_id, job_id)
    try:
        record = _decode(running, store.get(running))
    except ObjectNotFound:
        return False
    with suppress(PreconditionFailed):
        put_once(store, key, encode(document))
    if is_running(store, item_id, job_id):
        cancel_slots(store, item_id, record.slots, asked_at=wish.asked_at, asked_by=wish.asked_by)
        return True
    # It ended between the two looks, and nobody else would come for this soon.
    store.delete([key])
    return False


def read_cancellation(store: ObjectStore, item_id: str, job_id: str) -> Cancellation | None:
    """Whether somebody asked the job to end; None: nobody did."""
    key = cancel_key(item_id, job_id)
    try:
        fields = decode(key, store.get(key))
    except ObjectNotFound:
        return None
    return Cancellation(fields.instant("asked_at"), fields.text("asked_by"))


def list_running(store: ObjectStore, item_id: str) -> tuple[list[RunningRecord], list[str]]:
    """All running records, and the keys of verdicts and cancellations that have none."""
    prefix = running_prefix(item_id)
    records: dict[str, RunningRecord] = {}
    listed: set[str] = set()
    beside: list[tuple[str, str]] = []
    for info in store.list(prefix):
        job_id, _, kind = info.key.removeprefix(prefix).rpartition(".")
        if not JOB_ID.fullmatch(job_id) or kind not in ("json", "verdict", "cancel"):
            continue  # somebody else's file
        if kind != "json":
            beside.append((job_id, info.key))
            continue
        listed.add(job_id)
        try:
            records[job_id] = _decode(info.key, store.get(info.key))
        except ObjectNotFound:
            continue  # the job ended after the listing
    # A record is written long before what lies beside it and never comes back, so a listing that
    # shows a verdict or a cancellation alone was made after the record had gone.
    return list(records.values()), [key for job_id, key in beside if job_id not in listed]


def put_commit_verdict(store: ObjectStore, item_id: str, job_id: str, manifest: bytes) -> Verdict:
    """Decide that the job's point is committed, unless it is decided already; the decision."""
    return _verdict(same_or_put(store, verdict_key(item_id, job_id), manifest))


def put_dead_verdict(store: ObjectStore, item_id: str, job_id: str) -> Verdict:
    """Decide that the job is dead, unless it is decided already; the decision."""
    return _verdict(same_or_put(store, verdict_key(item_id, job_id), DEAD))


def publish(store: ObjectStore, item_id: str, data: bytes) -> None:
    """Put a manifest that was decided on under its own name. As good when it is there already."""
    manifest = decode_manifest(f"the verdict of {item_id}", data)
    put_once(store, point_key(item_id, manifest.name), data)


def has_manifest(store: ObjectStore, item_id: str, point_id: str) -> bool:
    """Whether the point is committed: in its place, or in the trash. It may be moved from one to
    the other meanwhile, either way, hence three looks."""
    prefixes = (points_prefix(item_id), trash_prefix(item_id), points_prefix(item_id))
    return any(_any(store.list(f"{prefix}{point_id}_")) for prefix in prefixes)


def _any(infos: Iterable[object]) -> bool:
    return next(iter(infos), None) is not None


def _verdict(data: bytes) -> Verdict:
    return Verdict(None if data == DEAD else data)


def _decode(key: str, data: bytes) -> RunningRecord:
    fields = decode(key, data)
    record = RunningRecord(
        job_id=fields.text("job_id"),
        point_id=fields.text("point_id"),
        started_at=fields.instant("started_at"),
        host=fields.text("host"),
        pid=fields.integer("pid"),
        lease=fields.text("lease"),
        grant=fields.text("grant"),
        type=fields.optional_text("type"),
        slots=()
        if fields.is_null("slots")
        else tuple(_slot(section) for section in fields.sections("slots")),
    )
    if not POINT_ID.fullmatch(record.point_id):
        raise fields.wrong("point_id", "a point id")
    return record


def _slot(fields: Fields) -> TypeSlot:
    try:
        kind = PointType(fields.text("type"))
    except ValueError as error:
        raise fields.wrong("type", "a type of backup") from error
    return TypeSlot(kind, fields.instant("slot"))
