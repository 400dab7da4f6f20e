"""The stores that the tests of the vault run against, each made fresh and empty."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sqlbak.vault.file_store import FileStore
from sqlbak.vault.memory_store import MemoryStore
from sqlbak.vault.store import ObjectStore


@dataclass(frozen=True, slots=True)
class Bench:
    """A fresh store, and how to leave it the way a killed process would."""

    kind: str
    store: ObjectStore
    crash_while_writing: Callable[[str, bytes], None]


def memory_bench() -> Bench:
    store = MemoryStore()

    def crash(key: str, data: bytes) -> None:
        store.writer(key).write(data)

    return Bench("memory", store, crash)


def file_bench(root: Path) -> Bench:
    store = FileStore(root)

    def crash(key: str, data: bytes) -> None:
        writer = store.writer(key)
        writer.write(data)
        os.close(writer._descriptor)

    return Bench("file", store, crash)


@pytest.fixture(params=["memory", "file"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    made = memory_bench() if request.param == "memory" else file_bench(tmp_path / "vault")
    yield made
    made.store.close()


@pytest.fixture
def store(bench: Bench) -> ObjectStore:
    return bench.store
