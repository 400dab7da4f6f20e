"""The vault key: 32 random bytes that its owner keeps, outside of the vault. Every key that
encrypts something in the vault is random and lies there wrapped by it. It is never stored, printed
or logged; its id may be.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sqlbak.vault.wrapped_key import NONCE_BYTES

__all__ = ["KEY_BYTES", "VaultKey"]

KEY_BYTES = 32
"""AES-256."""


class VaultKey:
    """One vault key. Two with the same ``id`` are the same."""

    __slots__ = ("_secret", "id")

    def __init__(self, secret: bytes) -> None:
        if len(secret) != KEY_BYTES:
            raise ValueError(f"a vault key has {KEY_BYTES} bytes")
        self._secret = secret
        self.id = self._derived(b"id").hex()[:16]

    def __repr__(self) -> str:
        return f"VaultKey({self.id})"

    @classmethod
    def new(cls) -> Self:
        """A random one."""
        return cls(secrets.token_bytes(KEY_BYTES))

    @classmethod
    def parse(cls, text: str) -> Self:
        """The key written as base64, as ``text`` gives it and ``openssl rand -base64 32`` makes
        it. ValueError never repeats the text."""
        try:
            secret = base64.b64decode(text.strip().encode("ascii"), validate=True)
        except (UnicodeEncodeError, binascii.Error):
            raise ValueError("it is not base64") from None
        if len(secret) != KEY_BYTES:
            raise ValueError(f"it has {len(secret)} bytes instead of {KEY_BYTES}")
        return cls(secret)

    def text(self) -> str:
        """The secret itself, for the file that its owner keeps."""
        return base64.b64encode(self._secret).decode("ascii")

    def wrap(self, data_key: bytes, about: str) -> bytes:
        """``data_key`` encrypted by AES-256-GCM: 12 bytes of nonce, then ciphertext and tag.
        ``about`` is what the key is for; only with the same words it is unwrapped again."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._cipher().encrypt(nonce, data_key, about.encode("utf-8"))

    def unwrap(self, wrapped: bytes, about: str) -> bytes:
        """The reverse. ValueError when it is not what ``wrap`` gave for these words."""
        nonce, body = wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:]
        try:
            return self._cipher().decrypt(nonce, body, about.encode("utf-8"))
        except (InvalidTag, ValueError):
            raise ValueError("it was not wrapped by this key for this") from None

    def digest_of_log(self, raw: bytes) -> str:
        """Tells equal log from other log, and nothing to who has not the key: keyed BLAKE2b of 16
        bytes, hexadecimal."""
        return hashlib.blake2b(raw, digest_size=16, key=self._derived(b"shipped log")).hexdigest()

    def seal_of_fork(self, item_id: str, record: str, content: bytes) -> str:
        """Proves, to who has the key, that a lineage record of the item was written with it:
        HMAC-SHA-256, in hexadecimal."""
        about = f"{item_id}/{record}\0".encode()
        return hmac.digest(self._derived(b"lineage"), about + content, "sha256").hex()

    def _cipher(self) -> AESGCM:
        return AESGCM(self._derived(b"wrap"))

    def _derived(self, label: bytes) -> bytes:
        return hmac.digest(self._secret, b"sqlbak vault key: " + label, "sha256")
