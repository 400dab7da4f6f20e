"""The keys of one vault: those that its settings name, and which of them the vault remembers.

A vault that ever took something encrypted takes nothing else any more: a policy file that lost its
key must not make backups readable. That the vault was once encrypted is told by ``keys/``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlbak.errors import NotEncrypted, ObjectDamaged, VaultKeyMissing
from sqlbak.vault.key_records import record_key, recorded_keys
from sqlbak.vault.store import ObjectStore
from sqlbak.vault.wrapped_key import WrappedKey

if TYPE_CHECKING:
    from sqlbak.vault.data_key import DataKey
    from sqlbak.vault.vault_key import VaultKey

__all__ = ["NO_KEYS", "KeySettings", "NewKey", "VaultKeys"]


@dataclass(frozen=True, slots=True)
class KeySettings:
    """What the settings of a vault say of its keys; each is read when it is needed first.

    Attributes:
        current: the key that new recovery points are encrypted with; None: they are not.
        old: keys that older recovery points may be encrypted with.
        accepts_plain: whether, with a current key, what is not encrypted is believed.
    """

    current: Callable[[], VaultKey] | None = None
    old: Sequence[Callable[[], VaultKey]] = ()
    accepts_plain: bool = False


NO_KEYS = KeySettings()


@dataclass(frozen=True, slots=True)
class NewKey:
    """A data key for one writer, how it stands in the vault, and the vault key behind it."""

    data_key: DataKey
    wrapped: WrappedKey
    vault_key: VaultKey


class VaultKeys:
    """Thread-safe. SecretUnavailable and VaultKeyInvalid come from any method that needs a key."""

    def __init__(self, store: ObjectStore, settings: KeySettings = NO_KEYS) -> None:
        self._store = store
        self._settings = settings
        self._lock = threading.Lock()
        self._held: list[VaultKey] | None = None
        self._may_write = False

    @property
    def is_on(self) -> bool:
        """Whether what is written is encrypted."""
        return self._settings.current is not None

    @property
    def are_named(self) -> bool:
        """Whether the settings name any key, so that what is encrypted can be proven."""
        return self.is_on or bool(self._settings.old)

    def held(self) -> Sequence[VaultKey]:
        """Every key that the settings name, the current one first."""
        with self._lock:
            if self._held is None:
                named = [*filter(None, [self._settings.current]), *self._settings.old]
                self._held = [read() for read in named]
            return self._held

    def new(self, about: str) -> NewKey | None:
        """A data key for a writer of ``about``; None: it writes without encryption, and may.

        VaultKeyMissing when the vault holds encrypted recovery points and no key is named."""
        with self._lock:
            may_write = self._may_write
        if not self.is_on:
            if not may_write and recorded_keys(self._store):
                raise VaultKeyMissing(
                    f"the vault at {self._store.url} is encrypted, and its settings name no key: "
                    "nothing is written into it that anybody could read",
                    hint="write the key's reference under the vault's encryption: {key: ...}, or "
                    "back up to another vault",
                )
            key = None
        else:
            key = self.held()[0]
            if not may_write:
                record_key(self._store, key.id, now=datetime.now(UTC))
        with self._lock:
            self._may_write = True
        if key is None:
            return None
        from sqlbak.vault.data_key import DataKey  # brings cryptography

        data_key = DataKey.new()
        return NewKey(data_key, WrappedKey(key.id, key.wrap(data_key.secret, about)), key)

    def open(self, wrapped: WrappedKey, about: str, *, where: str) -> DataKey:
        """The data key of ``where``, which was written as ``about``. VaultKeyMissing when its
        vault key is not named, ObjectDamaged when it was made for something else."""
        from sqlbak.vault.data_key import DataKey

        key = next((one for one in self.held() if one.id == wrapped.key_id), None)
        if key is None:
            held = ", ".join(one.id for one in self.held()) or "none"
            raise VaultKeyMissing(
                f"{where} is encrypted with the vault key {wrapped.key_id}, which is not at hand "
                f"(named are: {held})",
                hint="name it among the old_keys of the vault's encryption, or with --vault-key "
                "where the vault is a downloaded folder",
            )
        try:
            return DataKey(key.unwrap(wrapped.wrapped, about))
        except ValueError:
            raise ObjectDamaged(
                f"the key of {where} does not unwrap: it was changed, or is another object's"
            ) from None

    def check_plain(self, where: str) -> None:
        """NotEncrypted when ``where``, which is not encrypted, must not be believed."""
        if self.is_on and not self._settings.accepts_plain:
            raise NotEncrypted(
                f"{where} is not encrypted, and this vault's settings take only what is: whoever "
                "can write into the store could have put it there",
                hint="if it is from before encryption was turned on, write plain_points: allowed "
                "beside the vault's key, until such recovery points have expired",
            )

    def digests_of_log(self, raw: bytes) -> set[str]:
        """What the log may be called by in names of shipped log, by any key at hand."""
        return {key.digest_of_log(raw) for key in self.held()}
