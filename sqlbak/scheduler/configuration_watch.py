"""Policies that change while the service runs: the last good set stays in force."""

from __future__ import annotations

from pathlib import Path

from sqlbak.policy.loading import LoadedConfiguration, load_configuration

__all__ = ["ConfigurationWatch"]

Fingerprint = tuple[tuple[str, int, int, int], ...]


class ConfigurationWatch:
    """Reads the policy files again when they have changed and then stood still from one ``poll`` to
    the next, or when somebody asked: a pull from git that writes several files is never read half
    way."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: Fingerprint | None = None
        self._seen: Fingerprint | None = None
        self._asked = True

    def ask(self) -> None:
        """Read again at the next ``poll`` whatever the files' times say. Safe in a handler."""
        self._asked = True

    def poll(self) -> LoadedConfiguration | None:
        """The new configuration if the files changed, else None.

        Raises ConfigurationInvalid or UsageError once for each bad state of the files; the caller
        goes on with what it has.
        """
        before, self._seen = self._seen, self._fingerprint()
        if not self._asked and (self._seen == self._read or self._seen != before):
            return None
        self._asked = False
        self._read = self._seen
        return load_configuration(self._path)

    def _fingerprint(self) -> Fingerprint:
        files = [self._path]
        if self._path.is_dir():
            files = sorted([*self._path.glob("*.yaml"), *self._path.glob("*.yml")])
        found: list[tuple[str, int, int, int]] = []
        for file in files:
            try:
                status = file.stat()
            except OSError:
                continue  # loading says it better
            found.append((str(file), status.st_mtime_ns, status.st_size, status.st_ino))
        return tuple(found)
