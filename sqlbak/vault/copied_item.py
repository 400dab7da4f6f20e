"""One item of a vault as a plain folder that somebody downloaded: read, never written.

What is below ``items/<item>/`` in the vault lies directly in the folder. No vault, no network and
no configuration are needed to restore from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import NoReturn

from sqlbak.errors import AccessDenied, ObjectNotFound, VaultMissing
from sqlbak.model import Item
from sqlbak.vault.documents import decode
from sqlbak.vault.file_store import FileStore
from sqlbak.vault.layout import item_prefix
from sqlbak.vault.manifest import item_from_fields
from sqlbak.vault.store import ObjectInfo, ObjectWriter
from sqlbak.vault.vault import Vault, VaultRecord
from sqlbak.vault.vault_keys import NO_KEYS, KeySettings, VaultKeys

__all__ = ["CopiedItem", "open_copied_item"]

_RECORD = "item.json"


class CopiedItem:
    """An ObjectStore that holds one item's objects, under the keys that they had in the vault."""

    def __init__(self, folder: Path, item_id: str) -> None:
        self._files = FileStore(folder)
        self._prefix = item_prefix(item_id)

    @property
    def url(self) -> str:
        """``file:///…``."""
        return self._files.url

    def get(self, key: str) -> bytes:
        """See ObjectStore.get."""
        return self._files.get(self._inside(key))

    def read(self, key: str, start: int, length: int) -> bytes:
        """See ObjectStore.read."""
        return self._files.read(self._inside(key), start, length)

    def head(self, key: str) -> ObjectInfo:
        """See ObjectStore.head."""
        return replace(self._files.head(self._inside(key)), key=key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ObjectStore.list."""
        if not prefix.startswith(self._prefix):
            return
        for info in self._files.list(prefix.removeprefix(self._prefix)):
            yield replace(info, key=self._prefix + info.key)

    def _inside(self, key: str) -> str:
        if not key.startswith(self._prefix):
            raise ObjectNotFound(key, hint=f"{self.url} is a copy of one item only")
        return key.removeprefix(self._prefix)

    def _refuse(self, *_asked: object) -> NoReturn:
        raise AccessDenied(f"{self.url} is a copy of an item: nothing is written there")

    def put(self, key: str, data: bytes, *, if_absent: bool = True) -> ObjectInfo:
        """AccessDenied."""
        self._refuse(key, data, if_absent)

    def replace(self, key: str, data: bytes, *, if_match: str) -> ObjectInfo:
        """AccessDenied."""
        self._refuse(key, data, if_match)

    def writer(self, key: str) -> ObjectWriter:
        """AccessDenied."""
        self._refuse(key)

    def delete(self, keys: Iterable[str]) -> None:
        """AccessDenied."""
        self._refuse(keys)

    def delete_if(self, key: str, *, if_match: str) -> None:
        """AccessDenied."""
        self._refuse(key, if_match)

    def copy(self, source: str, target: str) -> ObjectInfo:
        """AccessDenied."""
        self._refuse(source, target)

    def sweep_unfinished(self, prefix: str, *, older_than: datetime) -> int:
        """AccessDenied."""
        self._refuse(prefix, older_than)

    def close(self) -> None:
        """See ObjectStore.close."""
        self._files.close()


def open_copied_item(folder: Path, keys: KeySettings = NO_KEYS) -> tuple[Vault, Item]:
    """The item whose objects lie in ``folder``, and a vault that holds nothing else. VaultMissing
    when the folder is no copy of an item."""
    try:
        data = (folder / _RECORD).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise VaultMissing(
            f"{folder} holds no {_RECORD}",
            hint="name a copy of a whole items/<item> folder of a vault",
        ) from None
    except OSError as error:
        raise AccessDenied(f"{folder / _RECORD}: {error.strerror}") from error
    fields = decode(_RECORD, data)
    item = item_from_fields(fields)
    store = CopiedItem(folder.absolute(), item.id)
    record = VaultRecord(f"copy of {item.id}", fields.instant("created_at"), "local")
    return Vault(store, record, VaultKeys(store, keys)), item
