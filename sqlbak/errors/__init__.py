"""Every error that sqlbak raises on purpose, as one tree.

Each class has a stable ``code`` (for logs, JSON and scripts), an ``exit_code`` (the CLI's
contract), one sentence that says what is wrong and where, and a ``hint`` that says what to do.
Errors travel up as exceptions and are printed or logged once, at the edge. Each branch of the tree
stands in a module of its own; everything else imports them from here.

    SqlbakError                         exit 1
    +-- UsageError                      exit 2   the command line or the configuration is wrong
    |   +-- ConfigurationInvalid                 policy files: every problem at once
    |   +-- UnknownName
    |   +-- NameNeeded
    |   +-- SecretUnavailable
    |   +-- InputUnreadable                      a file given on the command line
    |   +-- VaultKeyInvalid
    |   +-- VaultKeyMissing
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
    |   +-- NotEncrypted
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

from sqlbak.errors.engine import (
    BackupFailed,
    BaseUnusable,
    EngineError,
    LogChainBroken,
    LogRewritten,
    RestoreFailed,
    RestoreNotProven,
    ServerBehind,
    ServerNotReady,
    ServerProgramMissing,
    ServerRefused,
    ServerUnreachable,
)
from sqlbak.errors.refusals import (
    BackupPaused,
    FeatureUnsupported,
    InstantAmbiguous,
    InstantNonexistent,
    InstantUnreachable,
    LineageAmbiguous,
    LineageContradictory,
    LogNotReplayable,
    NotEncrypted,
    NothingToRestore,
    PositionUnreachable,
    Refused,
    TargetNotUsable,
)
from sqlbak.errors.root import (
    SqlbakError,
)
from sqlbak.errors.service import (
    Cancelled,
    HookFailed,
    Interrupted,
    NotificationFailed,
    ProtectionAtRisk,
    QueueUnreachable,
)
from sqlbak.errors.usage import (
    ConfigurationInvalid,
    InputUnreadable,
    NameNeeded,
    SecretUnavailable,
    UnknownName,
    UsageError,
    VaultKeyInvalid,
    VaultKeyMissing,
)
from sqlbak.errors.vault import (
    AccessDenied,
    LeaseHeld,
    LeaseLost,
    LineageConflict,
    ObjectDamaged,
    ObjectKeyInvalid,
    ObjectNotFound,
    PreconditionFailed,
    StoreFull,
    StoreThrottled,
    StoreUnreachable,
    UploadGone,
    VaultError,
    VaultMissing,
    VaultUnusable,
)

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
    "NotEncrypted",
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
    "VaultKeyInvalid",
    "VaultKeyMissing",
    "VaultMissing",
    "VaultUnusable",
]
