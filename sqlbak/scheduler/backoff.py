"""How long a job that failed waits before it is tried again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Backoff"]

FIRST_SECONDS = 15.0
LONGEST_SECONDS = 600.0


@dataclass(slots=True)
class Backoff:
    """Waits that double from 15 seconds to 10 minutes, per key, on a monotonic clock."""

    _failures: dict[object, int] = field(default_factory=dict)
    _until: dict[object, float] = field(default_factory=dict)

    def failed(self, key: object, now_seconds: float) -> float:
        """Note a failure; returns how many seconds the key now waits."""
        count = self._failures.get(key, 0)
        wait = min(FIRST_SECONDS * 2.0**count, LONGEST_SECONDS)
        self._failures[key] = count + 1
        self._until[key] = now_seconds + wait
        return wait

    def succeeded(self, key: object) -> None:
        """Forget the key's failures."""
        self._failures.pop(key, None)
        self._until.pop(key, None)

    def is_waiting(self, key: object, now_seconds: float) -> bool:
        """Whether the key must not be tried yet."""
        return now_seconds < self._until.get(key, float("-inf"))

    def keep(self, is_there: Callable[[Any], bool]) -> None:
        """Forget keys that stand for nothing any more."""
        for key in [key for key in self._failures if not is_there(key)]:
            self.succeeded(key)

    def clear(self) -> None:
        """Forget everything: the configuration changed, so the cause may be gone."""
        self._failures.clear()
        self._until.clear()
