"""What Prometheus is told. Labels are names of items, types, kinds and receivers only, so the
number of series is bounded by what is configured: about 35 for each item.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

import sqlbak
from sqlbak.model import PointType
from sqlbak.monitor.events import Event, EventKind, EventSeverity
from sqlbak.monitor.notifier import Postbox
from sqlbak.monitor.status import Health, ItemStatus
from sqlbak.monitor.watch import Sight

__all__ = ["FleetCollector", "Tally", "Vitals"]

_TOLD_WITH = {EventKind.BACKUP_DATA_DELETED: EventSeverity.CRITICAL}
"""How much a happening matters, where that is not a warning."""


@dataclass(frozen=True, slots=True)
class Vitals:
    """How the scheduler itself is. ``waiting``: due backups that wait, by type; ``idle_seconds``:
    since its loop last went round; ``queued``: jobs in the queue by what they do, where there is
    one."""

    waiting: Iterable[PointType]
    idle_seconds: float
    queued: Mapping[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Tally:
    """An EventSink that counts, since the start of the process: a condition once for each time
    that it begins. Thread-safe."""

    _counts: Counter[tuple[EventKind, EventSeverity]] = field(default_factory=Counter)
    _open: dict[str, EventKind] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def emit(self, event: Event) -> None:
        """Count one event."""
        with self._lock:
            if event.is_over:
                self._open.pop(event.key, None)
            elif event.kind.is_happening or event.key not in self._open:
                self._counts[event.kind, event.severity] += 1
                if not event.kind.is_happening:
                    self._open[event.key] = event.kind

    def counts(self) -> dict[tuple[EventKind, EventSeverity], int]:
        """How many of each there were."""
        with self._lock:
            return dict(self._counts)

    def lasting(self) -> Mapping[EventKind, int]:
        """How many conditions of each kind hold now."""
        with self._lock:
            return Counter(self._open.values())


class FleetCollector(Collector):
    """Makes the metrics anew for each scrape, from what is known then."""

    def __init__(
        self,
        sight: Callable[[], Sight | None],
        vitals: Callable[[], Vitals],
        boxes: Callable[[], Iterable[Postbox]],
        tally: Tally,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._sight = sight
        self._vitals = vitals
        self._boxes = boxes
        self._tally = tally
        self._now = now

    def describe(self) -> Iterable[Metric]:
        """Nothing: names are not fixed before there is something to tell."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Everything."""
        yield InfoMetricFamily("sqlbak_build", "The version.", {"version": sqlbak.__version__})
        yield from _of_vitals(self._vitals())
        yield from _of_notices(self._boxes(), self._tally)
        sight = self._sight()
        if sight is not None:
            age = max((self._now() - sight.taken_at).total_seconds(), 0.0)
            yield from _of_sight(sight)
            yield from _of_items(sight.statuses, age)


def _of_vitals(vitals: Vitals) -> Iterator[Metric]:
    waiting = Counter(vitals.waiting)
    yield _gauge(
        "sqlbak_backups_waiting",
        "Due backups that wait for a free place.",
        ("type",),
        [((kind.value,), waiting[kind]) for kind in PointType],
    )
    yield _gauge(
        "sqlbak_scheduler_idle_seconds",
        "Time since the scheduler last looked at what is due.",
        (),
        [((), vitals.idle_seconds)],
    )
    yield _gauge(
        "sqlbak_queue_jobs",
        "Jobs in the queue, of all schedulers: those to do, and those being done.",
        ("status",),
        [((status,), number) for status, number in vitals.queued.items()],
    )


def _of_notices(boxes: Iterable[Postbox], tally: Tally) -> Iterator[Metric]:
    counts = [(box.name, box.counts) for box in boxes]
    sent = CounterMetricFamily("sqlbak_letters_sent", "Notices sent.", labels=("receiver",))
    for name, count in counts:
        sent.add_metric((name,), count["sent"])
    yield sent
    for word, text in (
        ("failing", "Tries to send a notice that failed since the last one that was sent."),
        ("waiting", "Notices that wait to be sent."),
        ("lost", "Notices dropped since the last one that was sent."),
    ):
        yield _gauge(
            f"sqlbak_notices_{word}",
            text,
            ("receiver",),
            [((name,), count["failed" if word == "failing" else word]) for name, count in counts],
        )
    events = CounterMetricFamily(
        "sqlbak_events", "How often something worth telling began.", labels=("kind", "severity")
    )
    # Those that never were are told as 0: Prometheus sees no increase in what was not there before.
    never = {(kind, _TOLD_WITH.get(kind, EventSeverity.WARNING)): 0 for kind in EventKind}
    for (kind, severity), number in sorted({**never, **tally.counts()}.items()):
        events.add_metric((kind.value, severity.value), number)
    yield events
    lasting = tally.lasting()
    yield _gauge(
        "sqlbak_conditions",
        "What is wrong now and worth telling, in items, instances, vaults or policies.",
        ("kind",),
        [((kind.value,), lasting.get(kind, 0)) for kind in EventKind if not kind.is_happening],
    )


def _of_sight(sight: Sight) -> Iterator[Metric]:
    yield _gauge(
        "sqlbak_status_timestamp_seconds",
        "When the fleet was last looked at.",
        (),
        [((), sight.taken_at.timestamp())],
    )
    yield _gauge("sqlbak_status_duration_seconds", "How long that took.", (), [((), sight.seconds)])
    healths = Counter(status.health for status in sight.statuses)
    yield _gauge(
        "sqlbak_items",
        "Items by health.",
        ("health",),
        [((health.value,), healths[health]) for health in Health],
    )


def _of_items(statuses: Iterable[ItemStatus], age: float) -> Iterator[Metric]:
    """``age``: seconds since the statuses were made; what could be lost has grown by it."""
    items = list(statuses)

    def each(
        name: str, text: str, value: Callable[[ItemStatus], float | None]
    ) -> GaugeMetricFamily:
        pairs = [((one.name,), value(one)) for one in items]
        return _gauge(name, text, ("item",), pairs)

    def each_type(
        name: str, text: str, values: Callable[[ItemStatus], Iterable[tuple[PointType, float]]]
    ) -> GaugeMetricFamily:
        pairs = [((one.name, kind.value), value) for one in items for kind, value in values(one)]
        return _gauge(name, text, ("item", "type"), pairs)

    yield _gauge(
        "sqlbak_item_health",
        "1 for the health that an item has.",
        ("item", "health"),
        [
            ((one.name, health.value), float(one.health is health))
            for one in items
            for health in Health
        ],
    )
    yield _gauge(
        "sqlbak_item_problem",
        "1 for each problem that an item has.",
        ("item", "kind", "severity"),
        sorted(
            {
                ((one.name, concern.kind.value, concern.severity.value), 1.0)
                for one in items
                for concern in one.concerns
                if concern.severity is not EventSeverity.NOTICE
            }
        ),
    )
    yield each(
        "sqlbak_rpo_seconds",
        "How much work losing the server now would cost.",
        lambda one: None if one.rpo is None else one.rpo.total_seconds() + age,
    )
    yield each(
        "sqlbak_rpo_promised_seconds",
        "How much the policy promises at most.",
        lambda one: one.promise.target.total_seconds(),
    )
    yield each(
        "sqlbak_rpo_limit_seconds",
        "From where on the promise counts as broken.",
        lambda one: one.promise.limit.total_seconds(),
    )
    yield each(
        "sqlbak_newest_restorable_timestamp_seconds",
        "The newest instant that can be restored.",
        lambda one: _stamp(one.newest_restorable),
    )
    yield each(
        "sqlbak_oldest_restorable_timestamp_seconds",
        "The oldest instant that can be restored.",
        lambda one: _stamp(one.oldest_restorable),
    )
    yield each(
        "sqlbak_chain_usable",
        "1 while the newest recovery point can be restored.",
        lambda one: float(one.is_chain_usable),
    )
    yield each("sqlbak_stored_bytes", "All recovery points.", lambda one: one.size_bytes)
    yield each(
        "sqlbak_added_bytes_per_day",
        "What is added a day, over a week.",
        lambda one: one.added_bytes_per_day,
    )
    yield each(
        "sqlbak_restore_bytes",
        "What a restore to the newest instant fetches.",
        lambda one: one.restore_bytes,
    )
    yield each(
        "sqlbak_restore_estimated_seconds",
        "How long that takes at the speed of the last full.",
        lambda one: one.restore_seconds,
    )
    yield each(
        "sqlbak_server_up",
        "1 while the server answers; absent while it is not asked.",
        lambda one: None if not one.server_was_asked else float(one.server_answers),
    )
    yield each(
        "sqlbak_slot_lag_bytes",
        "Log that the replication slot holds on the server.",
        lambda one: None if one.slot is None else one.slot.lag_bytes,
    )
    yield each(
        "sqlbak_slot_safe_bytes",
        "Log that may still be written before the slot is lost.",
        lambda one: None if one.slot is None else one.slot.safe_bytes,
    )
    yield each(
        "sqlbak_stale_jobs",
        "Jobs that began and hold no living lease.",
        lambda one: one.stale_jobs,
    )
    yield each_type(
        "sqlbak_backup_running_seconds",
        "For how long a backup has been running.",
        lambda one: [
            (kind, max((one.as_of - since).total_seconds(), 0.0) + age)
            for kind, since in one.running.items()
        ],
    )
    yield each_type(
        "sqlbak_last_backup_timestamp_seconds",
        "When the last backup of a type was done.",
        lambda one: [(kind, point.finished_at.timestamp()) for kind, point in one.last.items()],
    )
    yield each_type(
        "sqlbak_last_backup_duration_seconds",
        "How long it took.",
        lambda one: [
            (kind, (point.finished_at - point.started_at).total_seconds())
            for kind, point in one.last.items()
        ],
    )
    yield each_type(
        "sqlbak_last_backup_bytes",
        "What it stored.",
        lambda one: [(kind, point.size_bytes) for kind, point in one.last.items()],
    )
    yield each_type(
        "sqlbak_next_backup_timestamp_seconds",
        "When the next one is due.",
        lambda one: [(kind, at.timestamp()) for kind, at in one.next.items()],
    )


def _stamp(instant: datetime | None) -> float | None:
    return None if instant is None else instant.timestamp()


def _gauge(
    name: str,
    text: str,
    labels: tuple[str, ...],
    pairs: Iterable[tuple[tuple[str, ...], float | None]],
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in pairs:
        if value is not None:
            family.add_metric(values, value)
    return family
