"""Collecting what status is decided from: from the vaults, and from the servers where asked.

The vaults are asked for listings mostly; of records only those of the last few runs are read, and
more where something is not as it should be. Everything goes in parallel, but never with more
requests at once than a store likes. Nothing here raises for the trouble of one item or vault: it
becomes part of what is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice, takewhile
from zlib import crc32

import xxhash

from sqlbak.errors import (
    FeatureUnsupported,
    ObjectDamaged,
    SecretUnavailable,
    SqlbakError,
    VaultKeyInvalid,
)
from sqlbak.fleet import Fleet, StoredItem, instance_of
from sqlbak.model import EngineName, NoteCode, Point, PointType
from sqlbak.monitor.at_once import at_once
from sqlbak.monitor.holdings import Holdings, holdings_of, taken_at
from sqlbak.monitor.payloads import incomplete_points
from sqlbak.monitor.promise import is_served, scheduled
from sqlbak.monitor.running_jobs import JobState, running_jobs
from sqlbak.monitor.stock import Stock, stock_of
from sqlbak.monitor.watched import Look, Watched
from sqlbak.policy.calendar import previous_slot
from sqlbak.vault.cancelled_slots import list_cancelled_slots
from sqlbak.vault.job_records import JobName, JobOutcome, JobRecord, list_job_names, read_job
from sqlbak.vault.layout import lineages_prefix, points_prefix, tail_prefix
from sqlbak.vault.vault import Vault
from sqlbak.vault.vault_keys import NONE_MISSING, MissingKeys

__all__ = ["Gathered", "Gatherer"]

SERVERS_AT_ONCE = 64
"""Servers are asked on more threads than stores: one that is away holds its thread for long."""

_MOST_RECORDS = 40
"""How many job records of one item are read at most, when something is not as it should be."""

_LAST_RECORDS = 3
"""How many are read anyway, for what they note."""


_COUNTED_EVERY = 30
"""Who looks again and again counts the payload of an item at every so many looks only, and at
once where some was missing: it may be a hundred thousand objects."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """What was found, by name. ``unwatched``: stored items that nothing configured stands for.
    ``left_out``: databases that are neither included nor excluded, as ``instance/database``."""

    items: tuple[Watched, ...]
    unwatched: tuple[StoredItem, ...]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _KeysSeen:
    """What Watched says of the keys of one vault."""

    error: SqlbakError | None = None
    missing: MissingKeys = NONE_MISSING


class Gatherer:
    """Looks at one fleet, once or, with ``remembers``, again and again: what came of listings that
    have not changed since is then not computed anew. For one thread."""

    def __init__(self, fleet: Fleet, *, remembers: bool = False) -> None:
        self._fleet = fleet
        self._remembers = remembers
        self._known: dict[str, tuple[str, Holdings]] = {}
        self._records: dict[str, dict[str, JobRecord]] = {}
        self._incomplete: dict[str, tuple[Point, ...]] = {}
        self._looks = 0

    def gather(
        self, name: str | None, now: Callable[[], datetime], *, asks_servers: bool = True
    ) -> Gathered:
        """Everything about the item called ``name``, or all items of that instance; None: of all.
        ``now`` gives aware instants. ``name`` is configured."""
        self._looks += 1
        wanted = None if name is None else instance_of(name)
        instances = [one for one in self._fleet.instances() if wanted in (None, one)]
        stock = stock_of(self._fleet)
        keys = self._keys({self._fleet.policy(one).vault for one in instances}, stock)
        looks: dict[str, Look | None] = dict.fromkeys(instances)
        if asks_servers:
            seen = at_once(lambda one: self._look(one, now), instances, threads=SERVERS_AT_ONCE)
            looks = dict(zip(instances, seen, strict=True))
        found = [
            (watched, candidates)
            for instance in instances
            for watched, candidates in self._items(
                instance, stock, keys, looks[instance], asks_servers=asks_servers
            )
            if name in (None, instance, watched.name)
        ]
        moment = now()
        items = at_once(lambda pair: self._filled(*pair, moment), found)
        names = {one.name for one in items}
        ids = {one.item_id for one in items}
        self._known = {key: kept for key, kept in self._known.items() if key in ids}
        self._records = {key: kept for key, kept in self._records.items() if key in ids}
        self._incomplete = {key: kept for key, kept in self._incomplete.items() if key in ids}
        unwatched = () if name is not None else stock.items
        left_out = [
            f"{instance}/{database}"
            for instance, look in looks.items()
            if look is not None and look.inspection is not None
            for database in look.inspection.facts.get("left_out", ())
        ]
        return Gathered(
            tuple(items),
            tuple(
                one for one in unwatched if one.item.name not in names and one.item.id not in ids
            ),
            tuple(one for one in left_out if name in (None, wanted, one)),
        )

    def _keys(self, vault_names: Iterable[str], stock: Stock) -> dict[str, _KeysSeen]:
        """Whether the settings of these vaults lead to their keys; of one that does not answer,
        that alone is told."""
        away = dict(stock.failures)
        found: dict[str, _KeysSeen] = {}
        for name in vault_names:
            try:
                vault = None if name in away else self._fleet.existing_vault(name)
                missing = NONE_MISSING if vault is None else vault.keys.missing()
                found[name] = _KeysSeen(missing=missing)
            except (SecretUnavailable, VaultKeyInvalid) as error:
                found[name] = _KeysSeen(error)
            except SqlbakError:
                found[name] = _KeysSeen()  # the vault is away since
        return found

    def _look(self, instance: str, now: Callable[[], datetime]) -> Look | None:
        """None where there is nothing to ask the server for: nothing was ever backed up, or it is
        refused anyway."""
        try:
            if self._fleet.existing_vault(self._fleet.policy(instance).vault) is None:
                return None
        except SqlbakError:
            return None  # the slot has the vault's name; that the vault is away is told elsewhere
        try:
            inspection = self._fleet.inspect(instance)
        except FeatureUnsupported:
            return None
        except SqlbakError as error:
            return Look(now(), error=error)
        return Look(now(), inspection)

    def _items(
        self,
        instance: str,
        stock: Stock,
        keys: Mapping[str, _KeysSeen],
        look: Look | None,
        *,
        asks_servers: bool,
    ) -> Iterator[tuple[Watched, list[StoredItem]]]:
        """The configured items of one instance, and the stored ones that each may be."""
        fleet = self._fleet
        vault_name = fleet.policy(instance).vault
        bare = Watched(
            name=instance,
            engine=fleet.engine_name(instance).value,
            policy_name=fleet.policy_name(instance),
            policy=fleet.policy(instance),
            vault_name=vault_name,
            look=look,
            vault_error=dict(stock.failures).get(vault_name),
            key_error=keys[vault_name].error,
            missing_keys=keys[vault_name].missing,
        )
        vault: Vault | None = None
        if bare.vault_error is None:
            vault = fleet.existing_vault(vault_name)
        stored = [one for one in stock.items if one.vault is vault]
        ours = [one for one in stored if one.item.instance == instance]
        names: tuple[str, ...]
        try:
            fleet.require_supported(instance)
            names = self._names(instance, ours, look, asks_servers=asks_servers)
        except FeatureUnsupported as error:
            yield replace(bare, refusal=error), ours
            return
        for name in names:
            yield replace(bare, name=name), _candidates(name, stored, look, fleet)

    def _names(
        self, instance: str, ours: list[StoredItem], look: Look | None, *, asks_servers: bool
    ) -> tuple[str, ...]:
        """What the instance's items are called: by what its server says, where that is what tells
        it; else by what is stored of it."""
        stored = tuple(sorted({one.item.name for one in ours})) or (instance,)
        is_told = self._fleet.engine_name(instance) is EngineName.POSTGRES
        if not is_told and (not asks_servers or (look is not None and look.error is not None)):
            return stored
        try:
            return self._fleet.item_names(instance)
        except FeatureUnsupported:
            raise
        except SqlbakError:
            return stored

    def _filled(self, bare: Watched, candidates: list[StoredItem], now: datetime) -> Watched:
        try:
            told_since = _told_since(bare, now)
            found = [(one, *self._holdings(one, told_since)) for one in candidates]
            if not found:
                return bare
            stored, holdings, points = max(found, key=lambda one: _newest_id(one[1]))
            jobs = running_jobs([stored], now)
            alive = [job for job in jobs if job.state in (JobState.RUNNING, JobState.CANCELLING)]
            running = {
                PointType(job.record.type): job.record.started_at
                for job in alive
                if job.record.type is not None
            }
            open_slots = _open_slots(bare, holdings, now)
            since = _quiet_since(open_slots, holdings)
            records = self._read(stored, *_record_names(stored, since))
            return replace(
                bare,
                item_id=stored.item.id,
                holdings=holdings,
                running=running,
                stale_jobs=len(jobs) - len(alive),
                failures=_failures(records, holdings, since),
                cancelled=list_cancelled_slots(stored.vault.store, stored.item.id)
                if open_slots
                else (),
                incomplete=self._counted(stored, points),
                foreign=next((one for one in records if _is_foreign(one)), None),
            )
        except SqlbakError as error:
            return replace(bare, vault_error=error)

    def _read(self, stored: StoredItem, *names: JobName) -> list[JobRecord]:
        """Records in the order of their names; each is read once where this is remembered."""
        before = self._records.get(stored.item.id, {})
        found: dict[str, JobRecord] = {}
        for name in names:
            # A record that is damaged is of no use here, and `sqlbak jobs` names it.
            with suppress(ObjectDamaged):
                record = before.get(name.key) or read_job(stored.vault.store, name)
                if record is not None:
                    found[name.key] = record
        if self._remembers:
            self._records[stored.item.id] = found
        return list(found.values())

    def _counted(self, stored: StoredItem, points: Sequence[Point] | None) -> tuple[Point, ...]:
        """The recovery points whose payload was not all there when it was last counted."""
        item_id = stored.item.id
        known = self._incomplete.get(item_id)
        is_its_turn = (self._looks + crc32(item_id.encode())) % _COUNTED_EVERY == 0
        if known is None or known or is_its_turn:
            self._incomplete[item_id] = known = incomplete_points(stored, points)
        return known

    def _holdings(
        self, stored: StoredItem, logs_since: datetime
    ) -> tuple[Holdings, Sequence[Point] | None]:
        """What an item's points amount to; and they themselves, where they had to be read."""
        if not self._remembers:
            catalog = stored.catalog()
            return holdings_of(catalog, logs_since=logs_since), catalog.points
        digest = _digest(stored)
        known = self._known.get(stored.item.id)
        if known is not None and known[0] == digest:
            return known[1], None
        # What is committed between the two listings is seen, and computed again next time.
        catalog = stored.catalog()
        holdings = holdings_of(catalog, logs_since=logs_since)
        self._known[stored.item.id] = (digest, holdings)
        return holdings, catalog.points


def _digest(stored: StoredItem) -> str:
    """Stands for the names of all that a catalog is read from."""
    hashed = xxhash.xxh3_128()
    for prefix in (points_prefix, tail_prefix, lineages_prefix):
        for info in stored.vault.store.list(prefix(stored.item.id)):
            hashed.update(f"{info.key}\n".encode())
    return hashed.hexdigest()


def _candidates(
    name: str, stored: list[StoredItem], look: Look | None, fleet: Fleet
) -> list[StoredItem]:
    """The stored items that the configured name may stand for: by the identity that the server
    told, else by name alone (vault/items.py has the rule)."""
    named = [one for one in stored if one.item.name == name]
    if look is None or look.inspection is None:
        return named
    database = name.partition("/")[2] or None
    identities = {
        found.identity for found in look.inspection.items if found.database in (None, database)
    }
    same = [one for one in named if one.item.identity in identities]
    if same or not identities:
        return same or named
    configured = fleet.configured_names()
    return [
        one for one in stored if one.item.identity in identities and one.item.name not in configured
    ]


def _newest_id(holdings: Holdings) -> str:
    return max((point.id for point in holdings.last.values()), default="")


def _told_since(item: Watched, now: datetime) -> datetime:
    """Logs from before that are kept no longer, so that nobody is told when they go."""
    span = item.policy.retention.log
    days = span.days if span.days is not None else 31 * (span.months or 0)
    return now - timedelta(days=days)


def _open_slots(watched: Watched, holdings: Holdings, now: datetime) -> list[datetime]:
    """The newest slots that nothing serves."""
    slots = [previous_slot(watched.policy, kind, now) for kind in scheduled(watched.policy)]
    return [
        slot.instant
        for slot in slots
        if slot is not None and not is_served(watched.policy, slot, holdings)
    ]


def _quiet_since(open_slots: list[datetime], holdings: Holdings) -> datetime | None:
    """Runs that began until then tell nothing about why something is missing now: everything that
    was due had been taken. None: all may."""
    newest = holdings.newest_of(*PointType)
    return min([*open_slots, *([newest] if newest is not None else [])], default=None)


def _record_names(stored: StoredItem, since: datetime | None) -> list[JobName]:
    """The runs that began after ``since``, and the last few anyway; newest first."""
    wanted = takewhile(
        lambda pair: pair[0] < _LAST_RECORDS or since is None or pair[1].started_at > since,
        enumerate(list_job_names(stored.vault.store, stored.item.id)),
    )
    return [name for _, name in islice(wanted, _MOST_RECORDS)]


def _failures(
    records: Iterable[JobRecord], holdings: Holdings, since: datetime | None
) -> tuple[JobRecord, ...]:
    """Those that failed after ``since``, and since the newest recovery point of their type."""
    return tuple(
        record
        for record in records
        if record.outcome is JobOutcome.FAILED
        and (since is None or record.started_at.replace(microsecond=0) > since)
        and not _is_made_up_for(record, holdings)
    )


def _is_foreign(record: JobRecord) -> bool:
    return any(note.code is NoteCode.FOREIGN_BACKUP for note in record.notes)


def _is_made_up_for(record: JobRecord, holdings: Holdings) -> bool:
    point = next((one for kind, one in holdings.last.items() if kind.value == record.type), None)
    return point is not None and taken_at(point) >= record.started_at.replace(microsecond=0)
