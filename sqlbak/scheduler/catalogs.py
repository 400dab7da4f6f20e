"""What the loop knows of recovery points: read in the background, a few items of each vault at a
time, so that a store that is slow or away holds up neither the loop nor the items of other vaults.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlbak.errors import SqlbakError
from sqlbak.fleet import Fleet, StoredItem
from sqlbak.scheduler.due import DueJob
from sqlbak.scheduler.taken import telling
from sqlbak.stored_item import Served, newest_served
from sqlbak.vault.vault import Vault

__all__ = ["Catalogs", "Known"]

_READERS = 4
"""Of each vault."""

_INDEX_SECONDS = 60.0
_INDEX_AGAIN_SECONDS = 5.0


@dataclass(slots=True)
class Known:
    """What is stored of one item, as it was read, as far as what is due depends on it. ``due``:
    what was found to be due, which holds from ``due_from`` until ``due_until`` (None: nobody
    looked yet)."""

    served: Served
    read_at: float
    due: tuple[DueJob, ...] = ()
    due_from: datetime | None = None
    due_until: datetime | None = None

    def due_at(self, now: datetime) -> tuple[DueJob, ...] | None:
        """What was found before and still holds; None: look anew."""
        if self.due_from is None or self.due_until is None:
            return None
        return self.due if self.due_from <= now < self.due_until else None


@dataclass(slots=True)
class _Index:
    """The items of one vault by name."""

    items: dict[str, list[StoredItem]]
    read_at: float


@dataclass(slots=True)
class _State:
    """One configuration's worth of knowledge; ``lock`` guards all of it."""

    view: Fleet
    lock: threading.Lock = field(default_factory=threading.Lock)
    known: dict[str, Known] = field(default_factory=dict)
    forgotten: dict[str, float] = field(default_factory=dict)
    reading: set[str] = field(default_factory=set)
    indexes: dict[str, _Index] = field(default_factory=dict)
    index_lock: threading.Lock = field(default_factory=threading.Lock)


class Catalogs:
    """Call it from one thread; ``forget`` from any. ``on_failure``, and ``on_success``
    for each item that was read, are called from a reader."""

    def __init__(
        self,
        *,
        age_seconds: float,
        on_failure: Callable[[str, SqlbakError], None],
        on_success: Callable[[str], None] = lambda _name: None,
        on_news: Callable[[], None] = lambda: None,
    ) -> None:
        self._age_seconds = age_seconds
        self._on_failure = on_failure
        self._on_success = on_success
        self._on_news = on_news
        self._state: _State | None = None
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._leaving: list[ThreadPoolExecutor] = []
        """Of vaults that are not configured any more; their threads end with what they read."""

    def use(self, view: Fleet) -> None:
        """Read through ``view`` from now on; nothing is known any more. It is closed here."""
        before, self._state = self._state, _State(view)
        if before is not None:
            before.view.close_when_idle()
        for name in self._pools.keys() - {"", *view.vault_names()}:
            pool = self._pools.pop(name)
            pool.shutdown(wait=False)
            self._leaving.append(pool)

    def known(self, name: str) -> Known | None:
        """What is known of an item; None: nothing yet. What is missing or old is read anew."""
        state = self._current()
        now = time.monotonic()
        with state.lock:
            known = state.known.get(name)
            # By its own age each, so that not all items are read again in one moment.
            age = self._age_seconds * (0.75 + (zlib.crc32(name.encode()) % 256) / 1024)
            if (known is None or now - known.read_at >= age) and name not in state.reading:
                state.reading.add(name)
                state.view.enter()
                self._readers(state.view.policy(name).vault).submit(self._read, state, name)
        return known

    def forget(self, name: str, item_id: str | None = None) -> None:
        """An item's points have changed; ``item_id``: those of this one, where it is known. The
        index is read again where it does not have the item yet."""
        state = self._current()
        state.view.expect_item(item_id)
        with state.lock:
            state.known.pop(name, None)
            state.forgotten[name] = time.monotonic()
            for index in state.indexes.values():
                ids = {stored.item.id for stored in index.items.get(name, [])}
                if not ids or (item_id is not None and item_id not in ids):
                    index.read_at = float("-inf")

    def keep(self, is_there: Callable[[str], bool]) -> None:
        """Forget items that are not there any more: databases come and go."""
        state = self._current()
        with state.lock:
            for name in [name for name in state.known if not is_there(name)]:
                del state.known[name]
            for name in [name for name in state.forgotten if not is_there(name)]:
                del state.forgotten[name]

    def beside(self, work: Callable[[Fleet], None]) -> None:
        """Do something else with the view, in a reader; it answers for its own errors."""
        state = self._current()

        def run() -> None:
            try:
                work(state.view)
            finally:
                state.view.leave()

        state.view.enter()
        self._readers("").submit(run)

    def close(self) -> None:
        """End the readers and wait for them."""
        pools = [*self._pools.values(), *self._leaving]
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in pools:
            pool.shutdown(wait=True)
        if self._state is not None:
            self._state.view.close()

    def _readers(self, vault_name: str) -> ThreadPoolExecutor:
        """The threads that read one vault."""
        if vault_name not in self._pools:
            self._pools[vault_name] = ThreadPoolExecutor(_READERS, f"catalog-{vault_name}")
        return self._pools[vault_name]

    def _current(self) -> _State:
        if self._state is None:
            raise RuntimeError("use() comes first")
        return self._state

    def _read(self, state: _State, name: str) -> None:
        began = time.monotonic()
        try:
            # A database is known by its identity, not by its name.
            if "/" in name:
                served = state.view.served(name)
            else:
                served = newest_served(self._stored(state, name))
        except SqlbakError as error:
            self._on_failure(name, error)
        except Exception as error:  # noqa: BLE001 - nobody waits for a reader's end
            self._on_failure(name, SqlbakError(f"a defect in sqlbak: {error!r}"))
        else:
            self._on_success(name)
            kept = replace(served, points=telling(served.points))
            with state.lock:
                # What was read while it changed is worth nothing.
                if state.forgotten.get(name, float("-inf")) < began:
                    state.known[name] = Known(kept, began)
        finally:
            with state.lock:
                state.reading.discard(name)
            state.view.leave()
            self._on_news()

    def _stored(self, state: _State, name: str) -> list[StoredItem]:
        """The items of that name, by an index that is read once for all."""
        vault = state.view.vault(name)
        with state.index_lock:
            now = time.monotonic()
            index = state.indexes.get(vault.id)
            age = _INDEX_SECONDS
            if index is not None and name not in index.items:
                age = _INDEX_AGAIN_SECONDS  # it may have been made just now
            if index is None or now - index.read_at > age:
                index = _Index(items_by_name(vault), now)
                with state.lock:
                    state.indexes[vault.id] = index
            return index.items.get(name, [])


def items_by_name(vault: Vault) -> dict[str, list[StoredItem]]:
    """All items of a vault; several may have had one name."""
    found: dict[str, list[StoredItem]] = {}
    for item in vault.items():
        found.setdefault(item.name, []).append(StoredItem(vault, item))
    return found
