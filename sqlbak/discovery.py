"""The databases of SQL Server instances, asked for when they are needed and kept for a moment.

One look at an instance tells of all its databases, so that what runs for each of hundreds of them
does not ask again for each.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from sqlbak.engines.port import DiscoveredItem
from sqlbak.engines.registry import InstanceView

__all__ = ["Discovery", "NamesInUse"]

FRESH_SECONDS = 4.0
"""How old an answer may be for finding what is to be protected."""

KNOWN_SECONDS = 600.0
"""The same for telling which database is meant by a name that was known before."""

Look = Callable[[str], InstanceView]


@dataclass(slots=True)
class _Kept:
    """What an instance said last; ``lock`` lets one thread ask at a time."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    view: InstanceView | None = None
    looked_at: float = 0.0


class Discovery:
    """Answers kept by instance. Thread-safe. ``look`` asks an instance and raises EngineError."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._lock = threading.Lock()
        self._kept: dict[str, _Kept] = {}

    def view(self, instance: str, *, age_seconds: float = FRESH_SECONDS) -> InstanceView:
        """The databases of an instance, by an answer that is at most so old."""
        with self._lock:
            kept = self._kept.setdefault(instance, _Kept())
        with kept.lock:
            now = time.monotonic()
            if kept.view is None or now - kept.looked_at > age_seconds:
                kept.view = self._look(instance)
                kept.looked_at = time.monotonic()
            return kept.view

    def known(self, instance: str) -> InstanceView | None:
        """The last answer of an instance, however old; None: it was never asked."""
        with self._lock:
            kept = self._kept.get(instance)
        return None if kept is None else kept.view

    def item(self, instance: str, database: str) -> DiscoveredItem | None:
        """One database by name; None when there is none that is protected."""
        known = self.known(instance)
        found = None if known is None else known.items.get(database)
        if found is not None:
            return self.view(instance, age_seconds=KNOWN_SECONDS).items.get(database)
        return self.view(instance).items.get(database)


@dataclass(frozen=True, slots=True)
class NamesInUse(Collection[str]):
    """Whether an item name is somebody's now: a stored item under another name is a renamed one.

    Of SQL Server instances every database that is there counts, protected or not; of one that was
    not asked, or not wholly, every name counts, as none of its databases is known to be gone.
    """

    plain: frozenset[str]
    views: Mapping[str, InstanceView | None]

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        instance, slash, database = name.partition("/")
        if not slash or instance not in self.views:
            return name in self.plain
        view = self.views[instance]
        return view is None or not view.is_whole or database in view.names

    def __iter__(self) -> Iterator[str]:
        yield from self.plain
        for instance, view in self.views.items():
            yield from (f"{instance}/{name}" for name in (view.names if view else ()))

    def __len__(self) -> int:
        return sum(1 for _ in self)
