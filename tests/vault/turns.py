"""Several parties on one store, one store call at a time, in an order that a test chooses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from sqlbak.vault.store import ObjectStore
from tests.vault.crashing import CrashingStore

T = TypeVar("T")


class Turns:
    """Runs parties in threads; before each of its store calls a party waits to be chosen."""

    def __init__(self, store: ObjectStore, choices: Iterator[int]) -> None:
        self._store = store
        self._choices = choices
        self._changed = threading.Condition()
        self._running = 0
        self._waiting: list[str] = []
        self._chosen: str | None = None
        self._threads: list[threading.Thread] = []
        self.failures: dict[str, BaseException] = {}

    def party(self, name: str, work: Callable[[ObjectStore], object]) -> None:
        """Add a party; it begins with ``run``."""
        store = _TurnStore(self._store, self, name)

        def body() -> None:
            try:
                work(store)
            except BaseException as error:
                self.failures[name] = error
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

        self._threads.append(threading.Thread(target=body))

    def run(self) -> None:
        """Let all parties come to their end."""
        self._running = len(self._threads)
        for thread in self._threads:
            thread.start()
        with self._changed:
            while self._running:
                self._changed.wait_for(lambda: len(self._waiting) == self._running)
                if self._waiting:
                    self._chosen = sorted(self._waiting)[next(self._choices) % len(self._waiting)]
                    self._waiting.remove(self._chosen)
                    self._changed.notify_all()
                    self._changed.wait_for(
                        lambda: self._chosen is None and len(self._waiting) == self._running
                    )
        for thread in self._threads:
            thread.join()

    def wait(self, name: str) -> None:
        with self._changed:
            self._waiting.append(name)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._chosen == name)
            self._chosen = None


class _TurnStore(CrashingStore):
    def __init__(self, inner: ObjectStore, turns: Turns, name: str) -> None:
        super().__init__(inner)
        self._turns = turns
        self._name = name

    def pass_on(self, what: str, call: Callable[[], T]) -> T:
        self._turns.wait(self._name)
        return super().pass_on(what, call)
