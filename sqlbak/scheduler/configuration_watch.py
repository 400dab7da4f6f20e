"""Policies that change while the service runs: the last good set stays in force."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from sqlbak.errors import SqlbakError
from sqlbak.policy.loading import LoadedConfiguration, load_configuration
from sqlbak.scheduler.logs import EventLog

__all__ = ["ConfigurationWatch", "ReloadTrouble"]

Fingerprint = tuple[tuple[str, int, int, int, int], ...]

RETRY_SECONDS = 60.0
"""How soon files that could not be used are read again though they look the same: what was wrong
may lie elsewhere, such as a file system that was away."""


class ConfigurationWatch:
    """Reads the policy files again when they have changed and then stood still from one ``poll`` to
    the next, or when somebody asked: a pull from git that writes several files is never read half
    way. Links are followed, so that a folder that is swapped as a whole counts as changed."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._failed_at: float | None = None
        self._read: Fingerprint | None = None
        self._seen: Fingerprint | None = None
        self._asked = True

    def ask(self) -> None:
        """Read again at the next ``poll`` whatever the files' times say. Safe in a handler."""
        self._asked = True

    def poll(self) -> LoadedConfiguration | None:
        """The new configuration if the files changed, else None.

        Raises ConfigurationInvalid or UsageError for a bad state of the files, again once in a
        while as long as it lasts; the caller goes on with what it has.
        """
        before, self._seen = self._seen, self._fingerprint()
        has_changed = self._seen != self._read and self._seen == before
        if not (self._asked or has_changed or self._is_to_be_tried_again()):
            return None
        self._asked = False
        self._read = self._seen
        self._failed_at = self._clock()
        loaded = load_configuration(self._path)
        self._failed_at = None
        return loaded

    def _is_to_be_tried_again(self) -> bool:
        return self._failed_at is not None and self._clock() - self._failed_at >= RETRY_SECONDS

    def _fingerprint(self) -> Fingerprint:
        files = [self._path]
        if self._path.is_dir():
            files = sorted([*self._path.glob("*.yaml"), *self._path.glob("*.yml")])
        found: list[tuple[str, int, int, int, int]] = []
        for file in files:
            try:
                status = file.stat()
            except OSError:
                continue  # loading says it better
            # The time of change sees what leaves the rest as it was, such as other permissions.
            times = (status.st_mtime_ns, status.st_ctime_ns)
            found.append((str(file), *times, status.st_size, status.st_ino))
        return tuple(found)


class ReloadTrouble:
    """Logs why changed policies are not in force, once for each reason."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._why = ""

    def tell(self, error: SqlbakError) -> None:
        """They could not be read, or not be used."""
        if self._why != error.message:
            self._log.error(
                "policies not reloaded; the last good ones stay in force",
                code=error.code,
                error=error.message,
                hint=error.hint,
            )
        self._why = error.message

    def end(self) -> bool:
        """Policies are in force again; whether there was trouble."""
        was_there, self._why = bool(self._why), ""
        return was_there
