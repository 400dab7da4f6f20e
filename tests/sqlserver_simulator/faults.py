"""What can be made to go wrong, set by tests through ``simulator.faults``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Fault:
    """One thing that goes wrong in a BACKUP or RESTORE.

    kind: ``drop`` (cut the connection), ``drop_after`` (cut it once the work is done, before the
    client hears of it), ``kill`` (as KILL from another session), ``write`` (3202 with
    ``os_error``), ``read`` (3203), ``nonrecoverable`` (3271), ``busy`` (3023), ``damage`` (3043, a
    page with a wrong checksum), ``call`` (run ``action``), ``pause`` (wait ``seconds``), ``hold``
    (wait until ``released`` is set)
    at_percent: when; command: BACKUP DATABASE, BACKUP LOG, RESTORE DATABASE, RESTORE LOG,
    RESTORE VERIFYONLY, RESTORE HEADERONLY or None for any; database: its name or None for any;
    times: how often, None for always.
    """

    kind: str
    at_percent: float = 0
    command: str | None = None
    database: str | None = None
    times: int | None = 1
    os_error: str = "112(There is not enough space on the disk.)"
    seconds: float = 0
    device: str = ""
    action: Callable[[], None] | None = None
    leaves_partial: bool = False
    reached: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)


class Faults:
    """All faults in force. ``pace`` is seconds for a whole BACKUP or RESTORE, spread evenly over
    its steps; ``denied`` are server path prefixes that answer Access is denied."""

    def __init__(self) -> None:
        self.pace = 0.0
        self.denied: set[str] = set()
        self.free_bytes: int | None = None
        self.free_data_bytes: int | None = None
        self.msdb_fails = False
        # How the client is told of it; nobody has measured whether, and as what.
        self.msdb_failure_severity: int | None = None
        self.s3_error: str | None = None
        self.leaves_partial_files = False
        self.answers_attention = True
        self._faults: list[Fault] = []

    def add(self, kind: str, **parts: object) -> Fault:
        """Put a fault in force and return it."""
        fault = Fault(kind, **parts)  # type: ignore[arg-type]
        self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Mend everything."""
        self.__init__()  # type: ignore[misc]

    def take(self, kind: str, command: str, database: str) -> list[Fault]:
        """The faults of one kind that strike a statement as a whole."""
        found = [
            fault
            for fault in self._faults
            if fault.kind == kind
            and fault.command in {None, command}
            and (fault.database is None or fault.database.lower() == database.lower())
        ]
        for fault in found:
            self._used(fault)
        return found

    def _used(self, fault: Fault) -> None:
        fault.reached.set()
        if fault.times is not None:
            fault.times -= 1
            if fault.times <= 0:
                self._faults.remove(fault)

    def due(self, command: str, database: str, before: float, percent: float) -> list[Fault]:
        """The faults that strike between two percentages, each counted as used."""
        found = []
        for fault in list(self._faults):
            if fault.kind in {"busy", "drop_after"} or fault.command not in {None, command}:
                continue
            if fault.database is not None and fault.database.lower() != database.lower():
                continue
            if not (before < fault.at_percent <= percent or (before < 0 and fault.at_percent <= 0)):
                continue
            found.append(fault)
            self._used(fault)
        return found
