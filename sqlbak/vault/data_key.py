"""The key of one recovery point, or of one run of shipped log: what its bytes are encrypted with.

Frames are encrypted one by one, so that each can be read alone. A frame's number is its nonce, its
stream has a key of its own, and its place (recovery point, stream, number) is authenticated with
it: a frame that was moved, exchanged or changed does not decrypt. That none is left out, and that
no word of the manifest was changed, is proven by the manifest's seal.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sqlbak.vault.vault_key import KEY_BYTES
from sqlbak.vault.wrapped_key import NONCE_BYTES

__all__ = ["DataKey", "StreamCipher", "Undecryptable"]


class Undecryptable(ValueError):
    """The bytes are not what was encrypted here with this key."""


class DataKey:
    """Encrypts what one writer writes, and nothing else: no frame is ever encrypted twice."""

    __slots__ = ("secret",)

    def __init__(self, secret: bytes) -> None:
        if len(secret) != KEY_BYTES:
            raise ValueError(f"a data key has {KEY_BYTES} bytes")
        self.secret = secret

    def __repr__(self) -> str:
        return "DataKey(...)"

    @classmethod
    def new(cls) -> Self:
        """A random one."""
        return cls(secrets.token_bytes(KEY_BYTES))

    def stream_cipher(self, point_id: str, stream: str) -> StreamCipher:
        """What encrypts and decrypts the frames of one stream of the recovery point."""
        return StreamCipher(AESGCM(self._derived(f"frames of {stream}")), f"{point_id}/{stream}")

    def seal(self, content: bytes) -> str:
        """Proves, to who has the key, that ``content`` was written with it: HMAC-SHA-256, in
        hexadecimal."""
        return hmac.digest(self._derived("manifest"), content, "sha256").hex()

    def is_seal(self, seal: str, content: bytes) -> bool:
        """Whether ``seal`` gave that."""
        return hmac.compare_digest(self.seal(content).encode(), seal.encode("utf-8", "replace"))

    def encrypt_piece(self, piece: bytes, nonce: bytes, header: bytes) -> bytes:
        """One piece of shipped log, bound to its header. ``nonce``: 12 random bytes."""
        return AESGCM(self._derived("shipped log")).encrypt(nonce, piece, header)

    def decrypt_piece(self, stored: bytes, nonce: bytes, header: bytes) -> bytes:
        """The reverse. Undecryptable."""
        return _decrypted(AESGCM(self._derived("shipped log")), nonce, stored, header)

    def _derived(self, label: str) -> bytes:
        return hmac.digest(self.secret, b"sqlbak data key: " + label.encode("utf-8"), "sha256")


@dataclass(frozen=True, slots=True)
class StreamCipher:
    """Implements frames.FrameCipher. May be used from several threads."""

    _cipher: AESGCM
    _place: str

    def encrypt(self, number: int, frame: bytes) -> bytes:
        """Frame ``number``, counted from 0, and 16 bytes of tag."""
        return self._cipher.encrypt(*self._where(number, frame))

    def decrypt(self, number: int, stored: bytes) -> bytes:
        """The reverse. Undecryptable."""
        nonce, _, place = self._where(number, stored)
        return _decrypted(self._cipher, nonce, stored, place)

    def _where(self, number: int, data: bytes) -> tuple[bytes, bytes, bytes]:
        return number.to_bytes(NONCE_BYTES, "big"), data, f"{self._place}/{number}".encode()


def _decrypted(cipher: AESGCM, nonce: bytes, stored: bytes, about: bytes) -> bytes:
    try:
        return cipher.decrypt(nonce, stored, about)
    except (InvalidTag, ValueError):
        raise Undecryptable("its key does not fit: it was changed, or belongs elsewhere") from None
