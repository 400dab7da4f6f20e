"""What goes wrong around backups and restores, and interruptions."""

from __future__ import annotations

from sqlbak.errors.root import SqlbakError

__all__ = [
    "Cancelled",
    "HookFailed",
    "Interrupted",
    "NotificationFailed",
    "ProtectionAtRisk",
    "QueueUnreachable",
]


class HookFailed(SqlbakError):
    """A program that the policy files want to run before or after a backup failed."""

    code = "hook_failed"


class NotificationFailed(SqlbakError):
    """A notice did not reach whom it is for. Never carries a URL or another secret."""

    code = "notification_failed"


class QueueUnreachable(SqlbakError):
    """The PostgreSQL server that holds the queue of jobs does not answer, or refuses."""

    code = "queue_unreachable"


class ProtectionAtRisk(SqlbakError):
    """The check ran, and what it found is not good enough."""

    code = "protection_at_risk"
    exit_code = 4


class Interrupted(SqlbakError):
    """Stopped by a signal or by the user."""

    code = "interrupted"
    exit_code = 130

    def __init__(self, message: str = "interrupted") -> None:
        super().__init__(message)


class Cancelled(Interrupted):
    """Somebody asked this very job to end, from any machine. It is not to be tried again by itself
    before its next slot."""

    code = "cancelled"
