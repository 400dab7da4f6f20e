"""What a vault or its object store fails with."""

from __future__ import annotations

from sqlbak.errors.root import SqlbakError

__all__ = [
    "AccessDenied",
    "LeaseHeld",
    "LeaseLost",
    "LineageConflict",
    "ObjectDamaged",
    "ObjectKeyInvalid",
    "ObjectNotFound",
    "PreconditionFailed",
    "StoreFull",
    "StoreThrottled",
    "StoreUnreachable",
    "UploadGone",
    "VaultError",
    "VaultMissing",
    "VaultUnusable",
]


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
