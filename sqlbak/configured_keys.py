"""From references in policy files and on the command line to the keys of a vault."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from sqlbak.errors import VaultKeyInvalid
from sqlbak.policy.secret_reference import SecretReference
from sqlbak.policy.vault_settings import Encryption, PlainPoints
from sqlbak.vault.vault_keys import NO_KEYS, KeySettings

if TYPE_CHECKING:
    from sqlbak.vault.vault_key import VaultKey

__all__ = ["key_settings", "keys_for_reading", "read_vault_key"]


def read_vault_key(reference: SecretReference) -> VaultKey:
    """The vault key that ``reference`` leads to, read now. SecretUnavailable, VaultKeyInvalid."""
    from sqlbak.vault.vault_key import VaultKey  # brings cryptography

    try:
        return VaultKey.parse(reference.resolve())
    except ValueError as error:
        raise VaultKeyInvalid(
            f"{reference} leads to no vault key: {error}",
            hint="a vault key is 32 random bytes as base64; `sqlbak key new FILE` makes one",
        ) from None


def key_settings(encryption: Encryption | None) -> KeySettings:
    """The keys that a vault's settings name. None is read yet."""
    if encryption is None:
        return NO_KEYS
    return KeySettings(
        _reader(encryption.key),
        tuple(map(_reader, encryption.old_keys)),
        accepts_plain=encryption.plain_points is PlainPoints.ALLOWED,
    )


def keys_for_reading(
    references: Iterable[SecretReference], *, accepts_plain: bool = False
) -> KeySettings:
    """Keys for a vault that nothing is written into."""
    return KeySettings(None, tuple(map(_reader, references)), accepts_plain=accepts_plain)


def _reader(reference: SecretReference) -> Callable[[], VaultKey]:
    return lambda: read_vault_key(reference)
