"""What a statement sends back, as values; the endpoint turns them into tokens."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

from .errors import Message
from .sqltypes import Rowset


@dataclass(frozen=True, slots=True)
class Info:
    """A message of severity 10 or less. ``command`` says that a DONE of its own follows it, as
    captured for BACKUP and RESTORE."""

    message: Message
    command: int | None = None


@dataclass(frozen=True, slots=True)
class Errors:
    messages: list[Message]


@dataclass(frozen=True, slots=True)
class ResultSet:
    rowset: Rowset


@dataclass(frozen=True, slots=True)
class Done:
    """The end of one statement: CurCmd, and rows if it counts them."""

    command: int
    rows: int | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Scope:
    """Dynamic SQL begins (True) or ends (False): its DONEs are DONEINPROC, then DONEPROC."""

    begins: bool


@dataclass(frozen=True, slots=True)
class Environment:
    kind: int
    new: str | bytes
    old: str | bytes


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


@dataclass(frozen=True, slots=True)
class Cut:
    """Drop the connection without a word."""


Event = Info | Errors | ResultSet | Done | Scope | Environment | Pause | Cut
Events = Generator[Event, None, None]


@dataclass(slots=True)
class Request:
    """A statement under way, as sys.dm_exec_requests shows it."""

    command: str
    database_id: int
    started: Any
    percent: float = 0.0
    wait_type: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
