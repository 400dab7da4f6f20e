"""Requests that are well-formed and cannot be met; nothing was touched."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlbak.errors.root import SqlbakError

__all__ = [
    "BackupPaused",
    "FeatureUnsupported",
    "InstantAmbiguous",
    "InstantNonexistent",
    "InstantUnreachable",
    "LineageAmbiguous",
    "LineageContradictory",
    "LogNotReplayable",
    "NotEncrypted",
    "NothingToRestore",
    "PositionUnreachable",
    "Refused",
    "TargetNotUsable",
]


class Refused(SqlbakError):
    """The request is well-formed but cannot be met; nothing was touched.

    ``nearest`` lists the nearest instants that can be reached, in UTC, oldest first.
    """

    code = "refused"
    exit_code = 3

    def __init__(self, message: str, *, hint: str = "", nearest: Sequence[datetime] = ()) -> None:
        super().__init__(message, hint=hint)
        self.nearest = tuple(nearest)


class InstantUnreachable(Refused):
    """No chain of recovery points leads to the instant asked for."""

    code = "instant_unreachable"


class PositionUnreachable(Refused):
    """No chain of recovery points leads to the position in the log asked for."""

    code = "position_unreachable"


class InstantAmbiguous(Refused):
    """A local time that happens twice (the clocks go back); ``nearest`` holds both readings."""

    code = "instant_ambiguous"


class InstantNonexistent(Refused):
    """A local time that never happens (the clocks go forward)."""

    code = "instant_nonexistent"


class LineageAmbiguous(Refused):
    """Two lineages both hold the instant, with different states."""

    code = "lineage_ambiguous"


class LineageContradictory(Refused):
    """What is recorded of how lineages fork cannot be true: a circle, or two different origins."""

    code = "lineage_contradictory"


class NothingToRestore(Refused):
    """The item has no recovery point that a restore could start from."""

    code = "nothing_to_restore"


class TargetNotUsable(Refused):
    """The place to restore into is not empty, not writable or too small."""

    code = "target_not_usable"


class LogNotReplayable(TargetNotUsable):
    """Some log cannot be replayed on this machine. What begins at ``behind`` or later does not
    need it."""

    def __init__(self, message: str, *, behind: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.behind = behind


class FeatureUnsupported(Refused):
    """The server, store or version lacks what the request needs."""

    code = "feature_unsupported"


class BackupPaused(Refused):
    """Nothing of that kind can be taken of the item as its owner keeps it now (SQL Server: no log
    in the SIMPLE recovery model, nothing at all while it is offline). That is no failure."""

    code = "backup_paused"


class NotEncrypted(Refused):
    """A recovery point is not encrypted, and the vault's settings take only such as are."""

    code = "not_encrypted"
