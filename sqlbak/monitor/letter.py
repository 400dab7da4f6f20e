"""What notices look like: a subject and a text for people, a document for programs. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlbak.monitor.events import EventSeverity
from sqlbak.monitor.notices import Notice, NoticeState

__all__ = ["Letter"]

_ORDER = (EventSeverity.CRITICAL, EventSeverity.WARNING, EventSeverity.NOTICE)


@dataclass(frozen=True, slots=True)
class Letter:
    """One message: what became known since the last one, in the order in which it did.

    Attributes:
        notices: what to tell; not empty.
        host: of the service that tells it.
        version: of sqlbak.
        lost: how many notices before these were dropped, because the receiver was away too long.
    """

    notices: Sequence[Notice]
    host: str
    version: str
    lost: int = 0

    @property
    def severity(self) -> EventSeverity:
        """The worst in it."""
        return min((one.event.severity for one in self.notices), key=_ORDER.index)

    def subject(self) -> str:
        """One line."""
        first = min(self.notices, key=lambda one: _ORDER.index(one.event.severity))
        word = "over" if first.state is NoticeState.OVER else first.event.severity.value
        more = f" (and {len(self.notices) - 1} more)" if len(self.notices) > 1 else ""
        kind = first.event.kind.value.replace("_", " ")
        return " ".join(f"[sqlbak] {word}: {first.event.item}: {kind}{more}".split())

    def text(self) -> str:
        """Plain text, a paragraph a notice."""
        paragraphs = [_paragraph(notice) for notice in self.notices]
        if self.lost:
            paragraphs.append(f"{self.lost} earlier notices could not be delivered: sqlbak status")
        return "\n\n".join(paragraphs) + f"\n\nsqlbak {self.version} on {self.host}\n"

    def document(self, now: datetime) -> dict[str, Any]:
        """The same as JSON (docs/operations.md)."""
        return {
            "source": "sqlbak",
            "version": self.version,
            "host": self.host,
            "sent_at": _instant(now),
            "severity": self.severity.value,
            "lost": self.lost,
            "notices": [
                {
                    "state": notice.state.value,
                    "kind": notice.event.kind.value,
                    "item": notice.event.item,
                    "detail": notice.event.detail,
                    "severity": notice.event.severity.value,
                    "what": notice.event.what,
                    "remedy": notice.event.remedy,
                    "key": notice.event.key,
                    "occurred_at": _instant(notice.event.occurred_at),
                    "since": _instant(notice.since),
                    "seen": notice.seen,
                }
                for notice in self.notices
            ],
        }


def _paragraph(notice: Notice) -> str:
    event = notice.event
    at = f"{event.occurred_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
    if notice.state is NoticeState.OVER:
        since = f"{notice.since.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
        return f"OVER: {event.what}\n  at {at}, since {since}"
    word = event.severity.value.upper()
    lines = [f"{word}: {event.what}", f"  at {at}"]
    if notice.state is NoticeState.AGAIN:
        lines[1] += f", still so since {notice.since.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
    lines += [f"  {line}" for line in event.remedy.splitlines()]
    return "\n".join(lines)


def _instant(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="microseconds")
