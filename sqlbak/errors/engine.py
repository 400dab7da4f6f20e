"""What a database server fails with, or refuses."""

from __future__ import annotations

from collections.abc import Sequence

from sqlbak.errors.root import SqlbakError
from sqlbak.model import Note

__all__ = [
    "BackupFailed",
    "BaseUnusable",
    "EngineError",
    "LogChainBroken",
    "LogRewritten",
    "RestoreFailed",
    "RestoreNotProven",
    "ServerBehind",
    "ServerNotReady",
    "ServerProgramMissing",
    "ServerRefused",
    "ServerUnreachable",
]


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
