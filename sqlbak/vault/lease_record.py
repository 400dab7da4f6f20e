"""What a lease's object says, as a value and as its bytes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlbak.vault.documents import decode, encode, instant_text
from sqlbak.vault.work_progress import WorkProgress

__all__ = ["LeaseRecord"]


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """What a lease's object says.

    Attributes:
        name: what is leased.
        token: grows with every grant.
        grant: the random id of this grant.
        renewals: grows with every heartbeat.
        holder: who holds it, for people (host and process).
        purpose: what for, for people.
        acquired_at: since when, on the holder's clock; for showing only.
        ttl_seconds: how long it lives after a heartbeat.
        is_free: it was released.
        progress: how far the work had come at that heartbeat; None: nothing is known.
    """

    name: str
    token: int
    grant: str
    renewals: int
    holder: str
    purpose: str
    acquired_at: datetime
    ttl_seconds: float
    is_free: bool
    progress: WorkProgress | None = None

    def encode(self) -> bytes:
        """The object's bytes."""
        return encode(
            {
                "name": self.name,
                "token": self.token,
                "grant": self.grant,
                "renewals": self.renewals,
                "holder": self.holder,
                "purpose": self.purpose,
                "acquired_at": instant_text(self.acquired_at),
                "ttl_seconds": self.ttl_seconds,
                "is_free": self.is_free,
                "progress": None if self.progress is None else self.progress.document(),
            }
        )

    @classmethod
    def decode(cls, key: str, data: bytes) -> LeaseRecord:
        """The reverse; ObjectDamaged naming the key."""
        fields = decode(key, data)
        return cls(
            name=fields.text("name"),
            token=fields.integer("token", minimum=1),
            grant=fields.text("grant"),
            renewals=fields.integer("renewals"),
            holder=fields.text("holder"),
            purpose=fields.text("purpose"),
            acquired_at=fields.instant("acquired_at"),
            ttl_seconds=fields.number("ttl_seconds"),
            is_free=fields.boolean("is_free"),
            progress=None
            if fields.is_null("progress")
            else WorkProgress.read(fields.section("progress")),
        )

    @property
    def who(self) -> str:
        """Host and pid of the holder; what follows them tells programs whether that process
        lives."""
        return self.holder.partition(" ")[0]
