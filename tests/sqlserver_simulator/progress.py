"""The course of a BACKUP or RESTORE: percent messages, pace, faults, KILL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .database import Database
from .errors import Dropped, Message, SqlError
from .events import Events, Info, Pause, Request

if TYPE_CHECKING:
    from .session import Session

_STEPS = 20


class Stepper:
    """Walks from 0 to 100 percent. Each STATS step sends 3211, the last one always "100"; a DONE
    of its own follows each (captured)."""

    def __init__(
        self, session: Session, command: str, database: Database | str, stats: Any, number: int
    ) -> None:
        self.session = session
        self.instance = session.instance
        self.command = command
        self.database = database if isinstance(database, str) else database.name
        self.database_id = 0 if isinstance(database, str) else database.database_id
        self.stats = int(stats) if stats else 0
        self.number = number if self.instance.unknowns.done_per_message else None
        self.before = -1.0
        self.told = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Show the statement in sys.dm_exec_requests while it runs."""
        self.session.request = Request(
            self.command, self.database_id, self.instance.clock.local(), wait_type="BACKUPIO"
        )
        try:
            yield
        finally:
            self.session.request = None

    def fractions(self) -> list[float]:
        steps = max(_STEPS, 100 // self.stats if self.stats else 0)
        return [number / steps for number in range(steps + 1)]

    def at(self, fraction: float) -> Events:
        percent = fraction * 100
        if self.session.request is not None:
            self.session.request.percent = percent
        self.session.require_alive()
        for fault in self.instance.faults.due(self.command, self.database, self.before, percent):
            yield from self._strike(fault)
        self.before = percent
        if self.instance.faults.pace:
            yield Pause(self.instance.faults.pace / _STEPS)
            self.session.require_alive()
        if self.stats:
            steps = int(percent // self.stats) * self.stats
            shown = 100 if percent >= 100 else steps
            while self.told < shown:
                self.told = min(self.told + self.stats, shown)
                if self.told == shown or self.told % self.stats == 0:
                    text = f"{self.told} percent processed."
                    yield Info(Message(3211, text, 10), self.number)

    def _strike(self, fault: Any) -> Events:
        if fault.leaves_partial:
            self.instance.faults.leaves_partial_files = True
        if fault.kind == "drop":
            raise Dropped
        if fault.kind == "kill":
            self.session.kill()
            self.session.require_alive()
        if fault.kind == "pause":
            waited = 0.0
            while waited < fault.seconds:
                yield Pause(0.02)
                waited += 0.02
                self.session.require_alive()
        while fault.kind == "hold" and not fault.released.is_set():
            yield Pause(0.02)
            self.session.require_alive()
        if fault.kind == "call" and fault.action is not None:
            fault.action()
        if fault.kind == "write":
            device = fault.device or "device"
            raise SqlError(3202, f'Write on "{device}" failed: {fault.os_error}')
        if fault.kind == "read":
            device = fault.device or "device"
            raise SqlError(3203, f'Read on "{device}" failed: {fault.os_error}')
        if fault.kind == "nonrecoverable":
            raise SqlError(
                3271, f'A nonrecoverable I/O error occurred on file "{fault.device}:" '
                f"{fault.os_error}."
            )  # fmt: skip
        if fault.kind == "damage":
            raise SqlError(
                3043,
                f"BACKUP '{self.database}' detected an error on page (1:153) in file "
                f"'{fault.device}'.",
            )
