"""The keys of one vault: those that its settings name, and which of them the vault remembers.

A vault that ever took something encrypted takes nothing else any more: a policy file that lost its
key must not make backups readable. That the vault was once encrypted is told by ``keys/``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlbak.errors import (
    NotEncrypted,
    ObjectDamaged,
    SecretUnavailable,
    SqlbakError,
    VaultKeyInvalid,
    VaultKeyMissing,
)
from sqlbak.vault.key_records import record_key, recorded_ids
from sqlbak.vault.store import ObjectStore
from sqlbak.vault.wrapped_key import WrappedKey

if TYPE_CHECKING:
    from sqlbak.vault.data_key import DataKey
    from sqlbak.vault.vault_key import VaultKey

__all__ = ["NONE_MISSING", "NO_KEYS", "KeySettings", "MissingKeys", "NewKey", "VaultKeys"]


@dataclass(frozen=True, slots=True)
class KeySettings:
    """What the settings of a vault say of its keys; each is read when it is needed.

    Attributes:
        current: the key that new recovery points are encrypted with; None: they are not.
        old: keys that older recovery points may be encrypted with.
        accepts_plain: whether, where keys are named, what is not encrypted is believed.
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


@dataclass(frozen=True, slots=True)
class MissingKeys:
    """The ids of keys that something in the vault was encrypted with and that the settings do not
    lead to; and whether their current key encrypted nothing yet."""

    ids: tuple[str, ...] = ()
    is_current_unused: bool = False


NONE_MISSING = MissingKeys()


class VaultKeys:
    """Thread-safe. SecretUnavailable and VaultKeyInvalid come from any method that needs a key.

    Keys are read anew whenever one is needed. A scheduler runs for months: would it go on with a
    key that by now only its own memory holds, all that it wrote were lost when it ends.
    """

    def __init__(self, store: ObjectStore, settings: KeySettings = NO_KEYS) -> None:
        self._store = store
        self._settings = settings
        self._lock = threading.Lock()
        self._recorded: set[str | None] = set()

    @property
    def is_on(self) -> bool:
        """Whether what is written is encrypted."""
        return self._settings.current is not None

    @property
    def are_named(self) -> bool:
        """Whether the settings name any key, so that what is encrypted can be proven."""
        return self.is_on or bool(self._settings.old)

    @property
    def require_proof(self) -> bool:
        """Whether nothing may be believed that no key proves."""
        return self.are_named and not self._settings.accepts_plain

    def held(self) -> list[VaultKey]:
        """Every key that the settings lead to now, the current one first. An old one that cannot
        be read is left out; the current one's error is raised."""
        current = [] if self._settings.current is None else [self._settings.current()]
        return current + _readable(self._settings.old)

    def readable(self) -> list[VaultKey]:
        """Those of them that can be read: enough to prove something with any of them."""
        return _readable(self._readers())

    def missing(self) -> MissingKeys:
        """What the settings do not lead to; nothing where they name no key. Raises what reading
        the current key raises."""
        if not self.are_named:
            return NONE_MISSING
        held = [key.id for key in self.held()]
        recorded = recorded_ids(self._store)
        return MissingKeys(
            tuple(sorted(recorded - set(held))), self.is_on and held[0] not in recorded
        )

    def new(self, about: str) -> NewKey | None:
        """A data key for a writer of ``about``; None: it writes without encryption, and may.
        VaultKeyMissing when the vault holds encrypted recovery points and no key is named."""
        key = None if self._settings.current is None else self._settings.current()
        self._require_recorded(key)
        if key is None:
            return None
        from sqlbak.vault.data_key import DataKey  # brings cryptography

        data_key = DataKey.new()
        return NewKey(data_key, WrappedKey(key.id, key.wrap(data_key.secret, about)), key)

    def open(self, wrapped: WrappedKey, about: str, *, where: str) -> DataKey:
        """The data key of ``where``, which was written as ``about``. VaultKeyMissing when its
        vault key is not named, ObjectDamaged when it was made for something else."""
        from sqlbak.vault.data_key import DataKey

        key = self._find(wrapped.key_id, where)
        try:
            return DataKey(key.unwrap(wrapped.wrapped, about))
        except ValueError:
            raise ObjectDamaged(
                f"the key of {where} does not unwrap: it was changed, or is another object's"
            ) from None

    def _find(self, key_id: str, where: str) -> VaultKey:
        """The key of that id. A reference that leads nowhere any more does no harm while nothing
        needs it."""
        ids: list[str] = []
        unreadable: SqlbakError | None = None
        for read in self._readers():
            try:
                key = read()
            except (SecretUnavailable, VaultKeyInvalid) as error:
                unreadable = unreadable or error
                continue
            if key.id == key_id:
                return key
            ids.append(key.id)
        if unreadable is not None:
            raise unreadable  # it may be the one
        raise VaultKeyMissing(
            f"{where} is encrypted with the vault key {key_id}, which is not at hand "
            f"(named are: {', '.join(ids) or 'none'})",
            hint="name it as the key of the vault's encryption, or among its old_keys where a "
            "newer one has replaced it; where the vault is a downloaded folder, with --vault-key",
        )

    def _readers(self) -> list[Callable[[], VaultKey]]:
        return [*filter(None, [self._settings.current]), *self._settings.old]

    def _require_recorded(self, key: VaultKey | None) -> None:
        """See that the vault remembers ``key``, or that it remembers none."""
        key_id = None if key is None else key.id
        with self._lock:
            if key_id in self._recorded:
                return
        if key_id is not None:
            record_key(self._store, key_id, now=datetime.now(UTC))
        elif recorded_ids(self._store):
            raise VaultKeyMissing(
                f"the vault at {self._store.url} is encrypted, and its settings name no key: "
                "nothing is written into it that anybody could read",
                hint="write the key's reference under the vault's encryption: {key: ...}, or "
                "back up to another vault",
            )
        with self._lock:
            self._recorded.add(key_id)

    def check_plain(self, where: str) -> None:
        """NotEncrypted when ``where``, which is not encrypted, must not be believed."""
        if self.require_proof:
            raise NotEncrypted(
                f"{where} is not encrypted, and with a key only what is encrypted is believed: "
                "whoever can write into the store could have put it there",
                hint="if it is from before encryption was turned on, write plain_points: allowed "
                "beside the vault's key (with --from: --plain-points), until such recovery points "
                "have expired; if not, move it out of the vault",
            )

    def is_digest_of_log(self, digest: str, raw: bytes) -> bool:
        """Whether the log may be called so in names of shipped log, by any key at hand."""
        return any(read().digest_of_log(raw) == digest for read in self._readers())


def _readable(readers: Iterable[Callable[[], VaultKey]]) -> list[VaultKey]:
    found = []
    for read in readers:
        with suppress(SecretUnavailable, VaultKeyInvalid):
            found.append(read())
    return found
