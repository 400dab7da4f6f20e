"""Small JSON documents as the vault keeps them: one way to write them, one way to read them.

Written with sorted keys and two spaces so that people can read them; non-ASCII characters are
escaped, so that every name that a database server allows (lone surrogates too) can be kept.
A reader names the object and the field of whatever is wrong, and passes over fields it does not
know.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlbak.errors import ObjectDamaged, ObjectNotFound, PreconditionFailed
from sqlbak.vault.store import ObjectStore

__all__ = ["Fields", "canonical", "decode", "encode", "instant_text", "put_once", "same_or_put"]


def encode(document: Mapping[str, Any]) -> bytes:
    """The bytes of ``document``: sorted keys, two spaces, a newline at the end. ValueError for
    numbers that JSON has no word for (NaN, infinities)."""
    text = json.dumps(document, sort_keys=True, indent=2, allow_nan=False)
    return text.encode("ascii") + b"\n"


def canonical(document: Mapping[str, Any]) -> bytes:
    """The one form of ``document`` over which digests are taken: sorted keys, no white space."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")


def decode(key: str, data: bytes) -> Fields:
    """The document that the object ``key`` holds. ObjectDamaged when it is no JSON object."""
    try:
        document = json.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ObjectDamaged(f"{key} is not a JSON document: {error}") from error
    if not isinstance(document, dict):
        raise ObjectDamaged(f"{key} is not a JSON object")
    return Fields(key, document)


def instant_text(instant: datetime | None) -> str | None:
    """``2024-05-01T10:22:13.000000Z``; ValueError when the instant has no zone."""
    if instant is None:
        return None
    if instant.tzinfo is None:
        raise ValueError("an instant without a zone cannot be kept")
    return instant.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def put_once(store: ObjectStore, key: str, data: bytes) -> None:
    """Put if absent; an object that holds these very bytes already is as good (a repeated request
    whose first answer was lost). PreconditionFailed when it holds others."""
    if same_or_put(store, key, data) != data:
        raise PreconditionFailed(key)


def same_or_put(store: ObjectStore, key: str, data: bytes) -> bytes:
    """Put if absent and return what the object holds then: ``data``, or what was there before."""
    while True:
        try:
            store.put(key, data, if_absent=True)
        except PreconditionFailed:
            try:
                return store.get(key)
            except ObjectNotFound:
                continue  # deleted between the two calls
        return data


class Fields:
    """The fields of one document, or of a section of it, read with their types checked.

    Every method raises ObjectDamaged naming the object and the field when the field is missing
    or not of the type asked for.
    """

    def __init__(self, key: str, document: Mapping[str, Any], path: str = "") -> None:
        self.key = key
        self.document = document
        self._path = path

    def text(self, name: str) -> str:
        """A string."""
        value = self._get(name)
        if not isinstance(value, str):
            raise self.wrong(name, "a string")
        return value

    def optional_text(self, name: str) -> str | None:
        """A string, or None when the field is null or missing."""
        return None if self.document.get(name) is None else self.text(name)

    def integer(self, name: str, *, minimum: int = 0) -> int:
        """A whole number not below ``minimum``."""
        value = self._get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise self.wrong(name, f"a whole number from {minimum}")
        return value

    def number(self, name: str) -> float:
        """A number."""
        value = self._get(name)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise self.wrong(name, "a number")
        return float(value)

    def boolean(self, name: str) -> bool:
        """True or false."""
        value = self._get(name)
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return value

    def instant(self, name: str) -> datetime:
        """An ISO 8601 instant with its offset, as aware UTC."""
        try:
            value = datetime.fromisoformat(self.text(name))
        except ValueError as error:
            raise self.wrong(name, "an ISO 8601 instant") from error
        if value.tzinfo is None:
            raise self.wrong(name, "an instant with its offset")
        return value.astimezone(UTC)

    def optional_instant(self, name: str) -> datetime | None:
        """As ``instant``, or None when the field is null or missing."""
        return None if self.document.get(name) is None else self.instant(name)

    def section(self, name: str) -> Fields:
        """An object within the document."""
        value = self._get(name)
        if not isinstance(value, dict):
            raise self.wrong(name, "an object")
        return Fields(self.key, value, f"{self._path}{name}.")

    def sections(self, name: str) -> list[Fields]:
        """A list of objects."""
        value = self._get(name)
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise self.wrong(name, "a list of objects")
        return [
            Fields(self.key, one, f"{self._path}{name}[{index}].")
            for index, one in enumerate(value)
        ]

    def values(self, name: str) -> list[Any]:
        """A list of whatever; empty when the field is null or missing."""
        value = self.document.get(name)
        if value is not None and not isinstance(value, list):
            raise self.wrong(name, "a list")
        return [] if value is None else value

    def is_null(self, name: str) -> bool:
        """Whether the field is null or missing."""
        return self.document.get(name) is None

    def wrong(self, name: str, expected: str) -> ObjectDamaged:
        """The error to raise when the field's value cannot be what was written."""
        return ObjectDamaged(f"{self.key}: the field {self._path}{name} is not {expected}")

    def _get(self, name: str) -> Any:
        if name not in self.document:
            raise ObjectDamaged(f"{self.key} lacks the field {self._path}{name}")
        return self.document[name]
