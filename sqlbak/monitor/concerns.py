"""What is wrong with an item's protection, and what to do about it. Pure.

A concern is a condition: it lasts until it is mended. Its kind and detail are those of the event
that is told about it (monitor/events.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlbak.engines.port import Severity
from sqlbak.model import NoteCode, PointType
from sqlbak.monitor.events import Event, EventKind, EventSeverity
from sqlbak.monitor.promise import Promise, allowance, is_served, scheduled
from sqlbak.monitor.slot_view import SlotView
from sqlbak.monitor.watched import Watched
from sqlbak.policy.calendar import next_slot, previous_slot

__all__ = ["FOREIGN_REMEDY", "Concern", "found_concerns", "span_text"]

FOREIGN_REMEDY = (
    "let one tool alone take its logs, differentials and fulls; others may take copy-only fulls"
)

_LONGEST_RUN = timedelta(hours=24)
_CLOCKS_DIFFER = timedelta(minutes=1)
_SLOT_CODES = ("slot_lost", "slot_unreserved")
"""Problems of an inspection that the slot's own concern tells."""

_TAKEN_BY_BACKUPS = ("no_free_wal_sender", "no_free_replication_slot")

_CRITICAL, _WARNING, _NOTICE = EventSeverity.CRITICAL, EventSeverity.WARNING, EventSeverity.NOTICE
_ORDER = (_CRITICAL, _WARNING, _NOTICE)


@dataclass(frozen=True, slots=True)
class Concern:
    """One thing that is wrong; fields as in Event. A NOTICE does not count against the health.
    ``subject``: the item, or the instance or vault that many items have in common."""

    kind: EventKind
    subject: str
    severity: EventSeverity
    what: str
    remedy: str
    detail: str = ""

    def event(self, now: datetime) -> Event:
        """The event that tells it."""
        return Event(
            self.kind, self.subject, self.severity, self.what, self.remedy, now, self.detail
        )


def found_concerns(
    watched: Watched,
    rpo: timedelta | None,
    promise: Promise,
    slot: SlotView | None,
    now: datetime,
) -> tuple[Concern, ...]:
    """Everything that is wrong, the worst first."""
    found = [
        *_of_vault(watched),
        *_of_keys(watched),
        *_of_backups(watched, rpo, promise, now),
        *_of_others(watched),
        *_of_server(watched),
        *_of_slot(watched, slot),
    ]
    return tuple(sorted(found, key=lambda concern: _ORDER.index(concern.severity)))


def _of_vault(watched: Watched) -> Iterator[Concern]:
    if watched.vault_error is not None:
        yield Concern(
            EventKind.VAULT_UNREACHABLE,
            watched.vault_name,
            _CRITICAL,
            f"the vault {watched.vault_name} cannot be asked: {watched.vault_error.message}",
            watched.vault_error.hint or "make the vault reachable; until then nothing is backed up",
        )
    if watched.refusal is not None:
        yield Concern(
            EventKind.BACKUP_MISSING,
            watched.name,
            _CRITICAL,
            f"{watched.name} is not backed up: {watched.refusal.message}",
            watched.refusal.hint,
            "settings",
        )


def _of_keys(watched: Watched) -> Iterator[Concern]:
    if watched.key_error is not None:
        yield Concern(
            EventKind.VAULT_KEY_MISSING,
            watched.vault_name,
            _WARNING,
            f"the key of the vault {watched.vault_name} is not at hand on this machine: nothing "
            f"can be backed up to it or restored from it here: {watched.key_error.message}",
            watched.key_error.hint,
        )
    if watched.missing_keys.ids:
        # Whether anything that is kept needs them, only the manifests know; a key that was never
        # used is there instead of the one that the newest recovery points need.
        is_other = watched.missing_keys.is_current_unused
        yield Concern(
            EventKind.VAULT_KEY_MISSING,
            watched.vault_name,
            _WARNING if is_other else _NOTICE,
            f"the vault {watched.vault_name} was written with keys that its settings do not lead "
            f"to here: {', '.join(watched.missing_keys.ids)}; what they encrypted cannot be "
            "restored",
            "name them under old_keys of the vault's encryption; where nothing that is kept needs "
            "them any more, delete their records in keys/ of the vault",
            "old",
        )


def _of_backups(
    watched: Watched, rpo: timedelta | None, promise: Promise, now: datetime
) -> Iterator[Concern]:
    if watched.vault_error is not None:
        return
    if watched.holdings.newest is None:
        yield _nothing_restorable(watched)
    elif rpo is not None and rpo > promise.limit and PointType.FULL not in watched.paused:
        yield Concern(
            EventKind.RPO_BREACHED,
            watched.name,
            _CRITICAL,
            f"losing {watched.name} now would cost {span_text(rpo)} of work; the policy "
            f"{watched.policy_name} promises {span_text(promise.target)}",
            f"see why no newer backup is there: sqlbak jobs {watched.name} --failed",
        )
    if not watched.holdings.is_usable:
        why = "" if watched.holdings.trouble is None else f" ({watched.holdings.trouble.message})"
        yield Concern(
            EventKind.CHAIN_UNUSABLE,
            watched.name,
            _CRITICAL,
            f"the newest recovery points of {watched.name} join no full, and cannot be "
            f"restored{why}",
            f"take a full now: sqlbak backup {watched.name} --type full",
        )
    yield from _incomplete(watched)
    yield from _missing(watched, now)
    yield from _failed(watched)


def _incomplete(watched: Watched) -> Iterator[Concern]:
    points = watched.incomplete
    if not points:
        return
    which = points[0].id if len(points) == 1 else f"from {points[0].id} to {points[-1].id}"
    what = "1 recovery point" if len(points) == 1 else f"{len(points)} recovery points"
    yield Concern(
        EventKind.BACKUP_DATA_DAMAGED,
        watched.name,
        _CRITICAL,
        f"of the data of {what} of {watched.name} not all is in the vault any more: {which}; what "
        "needs it cannot be restored",
        "find out who deleted it, and bring its objects back from a copy of the vault; take a new "
        f"full: sqlbak backup {watched.name} --type full",
    )


def _nothing_restorable(watched: Watched) -> Concern:
    if PointType.FULL in watched.running:
        return Concern(
            EventKind.BACKUP_MISSING,
            watched.name,
            _WARNING,
            f"nothing of {watched.name} can be restored yet; its first full is running",
            f"wait for it: sqlbak jobs {watched.name}",
            PointType.FULL.value,
        )
    now = f"take one now: sqlbak backup {watched.name} --type full"
    is_cancelled = any(one.type is PointType.FULL for one in watched.cancelled)
    why = ", and its full was cancelled" if is_cancelled else ""
    return Concern(
        EventKind.BACKUP_MISSING,
        watched.name,
        _CRITICAL,
        f"nothing of {watched.name} can be restored: it has no usable full backup{why}",
        now if is_cancelled else f"start the scheduler (sqlbak run), or {now}",
        PointType.FULL.value,
    )


def _missing(watched: Watched, now: datetime) -> Iterator[Concern]:
    if watched.holdings.newest is None:
        return
    for kind in scheduled(watched.policy, watched.paused):
        # Younger slots may still be served in time; they do not hide an older one that was not.
        slot = previous_slot(watched.policy, kind, now - allowance(watched.policy, kind))
        if slot is None or is_served(watched.policy, slot, watched.holdings):
            continue
        since = watched.running.get(kind)
        if since is not None and now - since <= _LONGEST_RUN:
            continue
        if since is not None:
            yield Concern(
                EventKind.BACKUP_MISSING,
                watched.name,
                _WARNING,
                f"the {kind.value} backup of {watched.name} has been running for "
                f"{span_text(now - since)}",
                f"look at it: sqlbak jobs {watched.name}",
                kind.value,
            )
        elif any(one.type is kind and one.instant >= slot.instant for one in watched.cancelled):
            upcoming = next_slot(watched.policy, kind, now).instant
            yield Concern(
                EventKind.BACKUP_MISSING,
                watched.name,
                _WARNING,
                f"the {kind.value} backup of {watched.name} that was due at "
                f"{slot.instant:%Y-%m-%d %H:%M}Z was cancelled; the next one is due at "
                f"{upcoming:%Y-%m-%d %H:%M}Z",
                f"take one before: sqlbak backup {watched.name} --type {kind.value}",
                kind.value,
            )
        else:
            yield Concern(
                EventKind.BACKUP_MISSING,
                watched.name,
                _WARNING,
                f"the {kind.value} backup of {watched.name} that was due at "
                f"{slot.instant:%Y-%m-%d %H:%M}Z is missing, {span_text(now - slot.instant)} late",
                "is the scheduler running (sqlbak run)? "
                f"why runs failed: sqlbak jobs {watched.name} --failed",
                kind.value,
            )


def _failed(watched: Watched) -> Iterator[Concern]:
    told: set[str] = set()
    for record in watched.failures:
        if record.type in told:
            continue
        told.add(record.type)
        yield Concern(
            EventKind.BACKUP_FAILED,
            watched.name,
            _WARNING,
            f"the last {record.type} backup of {watched.name} failed at "
            f"{record.finished_at:%Y-%m-%d %H:%M}Z: {record.error_message or record.error_code}",
            "it is tried again by itself; the log of sqlbak run has the hint that belongs to it",
            record.type,
        )


def _of_others(watched: Watched) -> Iterator[Concern]:
    """The chain was healed; that there is somebody to talk to stays worth knowing for a while."""
    record = watched.foreign
    for note in () if record is None else record.notes:
        if note.code is NoteCode.FOREIGN_BACKUP:
            yield Concern(
                EventKind.FOREIGN_BACKUP,
                watched.name,
                _NOTICE,
                f"{watched.name}: {note.text}",
                FOREIGN_REMEDY,
                note.facts.get("kind", ""),
            )


def _of_server(watched: Watched) -> Iterator[Concern]:
    look = watched.look
    if look is None:
        return
    if look.error is not None:
        yield Concern(
            EventKind.SERVER_UNREACHABLE,
            watched.instance,
            _CRITICAL,
            f"the server of {watched.name} cannot be asked: {look.error.message}",
            look.error.hint or "make the server reachable; what is in the vault can be restored",
        )
    if look.inspection is None:
        return
    for problem in look.inspection.problems:
        if problem.code in _SLOT_CODES or problem.database not in (None, watched.database):
            continue
        # What a running backup uses itself stands in nobody's way.
        is_in_use = bool(watched.running) and problem.code in _TAKEN_BY_BACKUPS
        blocks = problem.severity is Severity.BLOCKING and not is_in_use
        yield Concern(
            EventKind.SERVER_PROBLEM,
            watched.instance if problem.database is None else watched.name,
            _CRITICAL if blocks else _NOTICE,
            problem.what,
            problem.remedy,
            problem.code,
        )
    clock = look.inspection.server_clock
    if clock is not None and abs(clock - look.looked_at) > _CLOCKS_DIFFER:
        apart = span_text(abs(clock - look.looked_at))
        yield Concern(
            EventKind.SERVER_PROBLEM,
            watched.instance,
            _NOTICE,
            f"the clocks of {watched.name} and of this machine are {apart} apart; restores go by "
            "the server's",
            "let both follow NTP",
            "clock",
        )


def _of_slot(watched: Watched, slot: SlotView | None) -> Iterator[Concern]:
    if slot is None or watched.policy.log is None or watched.holdings.newest is None:
        return
    again = f"sqlbak backup {watched.name} --type log"
    if not slot.exists or slot.is_lost:
        state = "is lost: the server discarded log that it held" if slot.exists else "is gone"
        yield Concern(
            EventKind.SLOT_NEAR_LOST,
            watched.instance,
            _CRITICAL,
            f"the replication slot {slot.name} of {watched.name} {state}; the next backup is a "
            "full, and the window has a gap",
            f"take it now: {again}",
        )
    elif slot.is_near_loss:
        left = "" if slot.safe_bytes is None else f": {_size(slot.safe_bytes)} of log are left"
        yield Concern(
            EventKind.SLOT_NEAR_LOST,
            watched.instance,
            _CRITICAL,
            f"the replication slot {slot.name} of {watched.name} is about to be lost{left}",
            f"run a log backup now ({again}), and raise max_slot_wal_keep_size",
        )


def span_text(span: timedelta) -> str:
    """``3 d 4 h``, ``2 h 5 min``, ``12 min``, ``40 s``."""
    seconds = max(round(span.total_seconds()), 0)
    days, rest = divmod(seconds, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, left = divmod(rest, 60)
    if days:
        return f"{days} d {hours} h" if hours else f"{days} d"
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{minutes} min" if minutes else f"{left} s"


def _size(size_bytes: int) -> str:
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
