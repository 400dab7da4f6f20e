"""Every error that sqlbak raises on purpose, as one tree.

Each class has a stable ``code`` (for logs, JSON and scripts), an ``exit_code`` (the CLI's
contract), one sentence that says what is wrong and where, and a ``hint`` that says what to do.
Errors travel up as exceptions and are printed or logged once, at the edge.

    SqlbakError                         exit 1
    +-- UsageError                      exit 2   the command line or the configuration is wrong
    |   +-- ConfigurationInvalid                 policy files: every problem at once
    |   +-- UnknownName
    |   +-- NameNeeded
    |   +-- SecretUnavailable
    |   +-- InputUnreadable                      a file given on the command line
    +-- Refused                         exit 3   well-formed, but cannot be met
    |   +-- InstantUnreachable
    |   +-- PositionUnreachable
    |   +-- InstantAmbiguous
    |   +-- InstantNonexistent
    |   +-- LineageAmbiguous
    |   +-- LineageContradictory
    |   +-- NothingToRestore
    |   +-- TargetNotUsable
    |   |   +-- LogNotReplayable
    |   +-- FeatureUnsupported
    |   +-- BackupPaused
    +-- VaultError                      exit 1
    |   +-- ObjectNotFound
    |   +-- PreconditionFailed
    |   +-- AccessDenied
    |   +-- StoreUnreachable
    |   +-- StoreThrottled
    |   +-- StoreFull
    |   +-- ObjectKeyInvalid
    |   +-- UploadGone
    |   +-- ObjectDamaged
    |   +-- VaultUnusable
    |   |   +-- VaultMissing
    |   +-- LeaseHeld
    |   +-- LeaseLost
    |   +-- LineageConflict
    +-- EngineError                     exit 1
    |   +-- ServerUnreachable
    |   +-- ServerRefused
    |   +-- ServerNotReady
    |   +-- ServerProgramMissing
    |   +-- ServerBehind
    |   +-- LogChainBroken
    |   |   +-- LogRewritten
    |   +-- BaseUnusable
    |   +-- BackupFailed
    |   +-- RestoreFailed
    |   +-- RestoreNotProven
    +-- HookFailed                      exit 1
    +-- QueueUnreachable                exit 1
    +-- NotificationFailed              exit 1
    +-- ProtectionAtRisk                exit 4
    +-- Interrupted                     exit 130
        +-- Cancelled
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar

from sqlbak.model import Note

__all__ = [
    "AccessDenied",
    "BackupFailed",
    "BackupPaused",
    "BaseUnusable",
    "Cancelled",
    "ConfigurationInvalid",
    "EngineError",
    "FeatureUnsupported",
    "HookFailed",
    "InputUnreadable",
    "InstantAmbiguous",
    "InstantNonexistent",
    "InstantUnreachable",
    "Interrupted",
    "LeaseHeld",
    "LeaseLost",
    "LineageAmbiguous",
    "LineageConflict",
    "LineageContradictory",
    "LogChainBroken",
    "LogNotReplayable",
    "LogRewritten",
    "NameNeeded",
    "NothingToRestore",
    "NotificationFailed",
    "ObjectDamaged",
    "ObjectKeyInvalid",
    "ObjectNotFound",
    "PositionUnreachable",
    "PreconditionFailed",
    "ProtectionAtRisk",
    "QueueUnreachable",
    "Refused",
    "RestoreFailed",
    "RestoreNotProven",
    "SecretUnavailable",
    "ServerBehind",
    "ServerNotReady",
    "ServerProgramMissing",
    "ServerRefused",
    "ServerUnreachable",
    "SqlbakError",
    "StoreFull",
    "StoreThrottled",
    "StoreUnreachable",
    "TargetNotUsable",
    "UnknownName",
    "UploadGone",
    "UsageError",
    "VaultError",
    "VaultMissing",
    "VaultUnusable",
]


class SqlbakError(Exception):
    """Something failed. ``message`` says what and where, ``hint`` says what to do about it."""

    code: ClassVar[str] = "failed"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message

    def advise(self, more: str) -> None:
        """Add to the hint what only a caller knows."""
        self.hint = f"{self.hint}; {more}" if self.hint else more


class UsageError(SqlbakError):
    """The command line or the configuration is wrong; nothing was done."""

    code = "usage"
    exit_code = 2


class ConfigurationInvalid(UsageError):
    """The policy files break a rule. ``problems`` holds one ``file:line: …`` sentence for each."""

    code = "configuration_invalid"

    def __init__(self, problems: Sequence[str]) -> None:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(
            f"the configuration has {count}:\n" + "\n".join(f"  {p}" for p in problems),
            hint="mend the lines named above, then run: sqlbak validate",
        )
        self.problems = tuple(problems)


class UnknownName(UsageError):
    """A name on the command line stands for nothing that is configured or stored."""

    code = "unknown_name"

    def __init__(self, kind: str, name: str, choices: Sequence[str]) -> None:
        listed = ", ".join(sorted(choices)) if choices else "none exist"
        super().__init__(f"there is no {kind} {name!r}", hint=f"choices: {listed}")


class NameNeeded(UsageError):
    """A name was left out where several things could be meant."""

    code = "name_needed"

    def __init__(self, kind: str, choices: Sequence[str]) -> None:
        listed = ", ".join(sorted(choices)) if choices else "none exist"
        super().__init__(f"which {kind} is meant?", hint=f"name one of: {listed}")


class SecretUnavailable(UsageError):
    """An ``env:`` or ``file:`` reference could not be read. Never carries the secret itself."""

    code = "secret_unavailable"


class InputUnreadable(UsageError):
    """A file named on the command line cannot be read or understood."""

    code = "input_unreadable"


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


class VaultError(SqlbakError):
    """The vault or its object store failed."""

    code = "vault_failed"


class ObjectNotFound(VaultError):
    """No object has that key."""

    code = "object_not_found"

    def __init__(self, key: str, *, hint: str = "") -> None:
        super().__init__(f"the vault has no object {key}", hint=hint)
        self.key = key


class PreconditionFailed(VaultError):
    """A conditional write lost: the object exists already, or changed since it was read."""

    code = "precondition_failed"

    def __init__(self, key: str) -> None:
        super().__init__(f"another writer was faster at {key}")
        self.key = key


class AccessDenied(VaultError):
    """The store knows us and says no, or does not know us."""

    code = "access_denied"


class StoreUnreachable(VaultError):
    """The store did not answer, or answered that it cannot serve now, until retries ran out."""

    code = "store_unreachable"


class StoreThrottled(StoreUnreachable):
    """The store asked to be called less often, until retries ran out."""

    code = "store_throttled"


class StoreFull(VaultError):
    """No space or quota left where the vault lives."""

    code = "store_full"


class ObjectKeyInvalid(VaultError):
    """A key that not every store could hold (sqlbak/vault/keys.py has the rules)."""

    code = "object_key_invalid"

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(
            f"{key!r} cannot be an object's key: {reason}",
            hint="sqlbak makes every key itself: please report this as a bug",
        )
        self.key = key


class UploadGone(VaultError):
    """A streaming upload was taken away before it was committed."""

    code = "upload_gone"

    def __init__(self, key: str) -> None:
        super().__init__(
            f"the unfinished upload of {key} was taken away by somebody",
            hint="look for lifecycle rules and sweeps that do not wait long enough",
        )
        self.key = key


class ObjectDamaged(VaultError):
    """An object's bytes are not the bytes that were written."""

    code = "object_damaged"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "bring the object back from a copy of the vault; to go on without its recovery "
        "point, move that one's manifest out of the vault and plan again",
    ) -> None:
        super().__init__(message, hint=hint)


class VaultUnusable(VaultError):
    """There is no vault there, or one of a format that this version cannot read."""

    code = "vault_unusable"


class VaultMissing(VaultUnusable):
    """There is no vault there yet."""

    code = "vault_missing"


class LeaseHeld(VaultError):
    """Another process works on the item now."""

    code = "lease_held"


class LeaseLost(VaultError):
    """The lease moved on while we worked; nothing may be committed any more."""

    code = "lease_lost"


class LineageConflict(VaultError):
    """The server tells another origin of a lineage than the vault has: two servers made it."""

    code = "lineage_conflict"


class EngineError(SqlbakError):
    """The database server failed or said no. ``findings``: what the server told of how it came to
    that; they become notes of what is taken instead."""

    code = "engine_failed"

    def __init__(self, message: str, *, hint: str = "", findings: Sequence[Note] = ()) -> None:
        super().__init__(message, hint=hint)
        self.findings = tuple(findings)


class ServerUnreachable(EngineError):
    """No connection to the database server."""

    code = "server_unreachable"


class ServerRefused(EngineError):
    """The server refuses the login or lacks a grant; the hint holds the statement that mends it."""

    code = "server_refused"


class ServerNotReady(EngineError):
    """The server's settings do not allow backups; the hint holds the line that mends it."""

    code = "server_not_ready"


class ServerProgramMissing(EngineError):
    """A PostgreSQL program of the right major version was not found."""

    code = "server_program_missing"


class ServerBehind(EngineError):
    """A standby has not come as far as what the vault already holds. Nothing is broken: it catches
    up, or it does not follow its primary any more."""

    code = "server_behind"


class LogChainBroken(EngineError):
    """The log since the last recovery point is gone or on another lineage: a full heals it."""

    code = "log_chain_broken"


class LogRewritten(LogChainBroken):
    """The server was put back to an older copy of itself and goes on under the same lineage: what
    it writes from now on is another history at the same positions."""

    code = "log_rewritten"


class BaseUnusable(EngineError):
    """The full that a differential would build on does not serve: another full heals it."""

    code = "base_unusable"


class BackupFailed(EngineError):
    """The backup did not complete; no recovery point was made."""

    code = "backup_failed"


class RestoreFailed(EngineError):
    """The restore did not complete; the target is not a usable database."""

    code = "restore_failed"


class RestoreNotProven(RestoreFailed):
    """The server recovered, but not provably to the state asked for; it was not promoted."""

    code = "restore_not_proven"


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
