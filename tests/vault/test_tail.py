"""Shipped log in a vault: small objects whose every bit is proven, and what seals them."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlbak.engines.port import BackupResult, ShippedPiece
from sqlbak.errors import ObjectDamaged, ObjectNotFound
from sqlbak.model import PointType, ShippedLog
from sqlbak.vault import tail as tail_module
from sqlbak.vault.file_store import FileStore
from sqlbak.vault.memory_store import MemoryStore
from sqlbak.vault.store import ObjectStore
from sqlbak.vault.tail import (
    TailSource,
    delete_pieces,
    list_tail,
    put_piece,
    read_piece,
)
from sqlbak.vault.tail_names import format_tail_name, new_run, parse_tail_name
from sqlbak.vault.vault import Vault, create_vault
from sqlbak.vault.vault_keys import VaultKeys
from tests.vault.making import ITEM, NOW, RESULT, Job

ANCHOR = "20240501T120000Z-abcdefghij"
FACTS = {"system_identifier": "7", "wal_segment_size": 16 << 20}
LOG = Random(7).randbytes(60_000)
RUN = "0123456789ab"


def ship(
    store: ObjectStore, first: int, last: int, *, lineage: str = "1", run: str = RUN
) -> ShippedLog:
    """One piece of LOG."""
    piece = ShippedPiece(first, last, LOG[first:last], NOW, NOW, {"log_tail": None})
    return put_piece(store, ITEM.id, piece, lineage=lineage, run=run, anchor_id=ANCHOR, facts=FACTS)


def no_seal(*_: object) -> bytes:
    raise ObjectNotFound("nothing is sealed")


def content(source: TailSource) -> bytes:
    return b"".join(source.read_frame("wal", i) for i in range(len(source.frame_starts("wal"))))


pieces = st.builds(
    ShippedLog,
    name=st.just(""),
    lineage=st.integers(1, 2**32 - 1).map(str),
    first_lsn=st.integers(0, 2**63),
    last_lsn=st.integers(2**63, 2**64 - 1),
    covers_until=st.none() | st.just(NOW),
    finished_at=st.just(NOW),
    run=st.from_regex(r"[0-9a-f]{12}", fullmatch=True),
    anchor_id=st.just(ANCHOR),
    facts_id=st.from_regex(r"[0-9a-f]{8}", fullmatch=True),
    raw_checksum=st.from_regex(r"[0-9a-f]{32}", fullmatch=True),
    object_checksum=st.from_regex(r"[0-9a-f]{16}", fullmatch=True),
    size_bytes=st.integers(0, 2**40),
)


@given(pieces)
def test_a_name_tells_all_that_a_plan_needs(piece: ShippedLog) -> None:
    name = format_tail_name(piece)
    assert len(name) <= 240
    assert parse_tail_name(f"n{piece.lineage}", name) == replace(piece, name=name)


@given(pieces, st.data())
def test_a_name_with_one_other_character_is_no_name(piece: ShippedLog, data: st.DataObject) -> None:
    name = format_tail_name(piece)
    index = data.draw(st.integers(0, len(name) - 1))
    other = data.draw(st.sampled_from("0123456789abcdefghijklmnopqrstuvwxyz_-."))
    changed = name[:index] + other + name[index + 1 :]
    if changed != name:
        with pytest.raises(ValueError, match=r"."):
            parse_tail_name("n1", changed)


def test_a_listing_is_in_order_and_a_foreign_object_hides_nothing() -> None:
    store = MemoryStore()
    for first, last in ((300, 300), (100, 200), (200, 300)):
        ship(store, first, last)
    store.put(f"items/{ITEM.id}/tail/n1/notes.txt", b"")
    store.put(f"items/{ITEM.id}/tail/stray", b"")
    found = list_tail(store, ITEM.id)
    assert [(p.first_lsn, p.last_lsn) for p in found.pieces] == [(100, 200), (200, 300), (300, 300)]
    assert len(found.unknown) == 2


def test_writing_a_piece_again_changes_nothing() -> None:
    store = MemoryStore()
    assert ship(store, 0, 100) == ship(store, 0, 100)
    assert len(list_tail(store, ITEM.id).pieces) == 1


def test_every_flipped_bit_and_every_cut_is_found() -> None:
    store = MemoryStore()
    piece = ship(store, 0, 300)
    (info,) = store.list(f"items/{ITEM.id}/tail/")
    whole = store.get(info.key)
    assert read_piece(store, ITEM.id, piece, VaultKeys(store)).data == LOG[:300]
    wrong = [whole[:size] for size in range(0, len(whole), 50)]
    for at in range(0, len(whole), 7):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << at % 8
        wrong.append(bytes(flipped))
    for data in wrong:
        store.delete([info.key])
        store.put(info.key, data)
        with pytest.raises(ObjectDamaged, match=r"tail/n1"):
            read_piece(store, ITEM.id, piece, VaultKeys(store))


def test_a_piece_in_another_items_folder_is_refused() -> None:
    store = MemoryStore()
    piece = ship(store, 0, 100)
    (info,) = store.list("items/")
    store.copy(info.key, info.key.replace(ITEM.id, "other-0123456789abcdef"))
    with pytest.raises(ObjectDamaged, match="item"):
        read_piece(store, "other-0123456789abcdef", piece, VaultKeys(store))


def test_a_piece_of_a_newer_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    monkeypatch.setattr(tail_module, "TAIL_FORMAT", 2)
    piece = ship(store, 0, 100)
    monkeypatch.undo()
    with pytest.raises(ObjectDamaged, match="newer version"):
        read_piece(store, ITEM.id, piece, VaultKeys(store))


@pytest.mark.skipif(shutil.which("zstd") is None, reason="zstd is not installed")
def test_pieces_in_a_row_are_raw_log_for_zstd_alone(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "vault")
    for first, last in ((0, 20_000), (20_000, 20_000), (20_000, 60_000)):
        ship(store, first, last)
    files = sorted((tmp_path / "vault" / "items" / ITEM.id / "tail" / "n1").glob("*.wal"))
    stored = b"".join(file.read_bytes() for file in files)
    decoded = subprocess.run(["zstd", "-dc"], input=stored, capture_output=True, check=True)
    assert decoded.stdout == LOG


def test_a_source_gives_one_row_from_pieces_that_overlap() -> None:
    store = MemoryStore()
    row = [ship(store, 100, 200), ship(store, 150, 400), ship(store, 400, 400)]
    source = TailSource(store, ITEM.id, row, VaultKeys(store), first_lsn=120, sealed=no_seal)
    assert source.size("wal") == 280
    assert source.frame_starts("wal") == [0, 80]
    assert content(source) == LOG[120:400]
    with pytest.raises(ValueError, match="do not join"):
        TailSource(store, ITEM.id, row[1:], VaultKeys(store), first_lsn=120, sealed=no_seal)


@pytest.fixture
def vault() -> Vault:
    return create_vault(MemoryStore(), redundancy="local", now=NOW)


def seal_range(vault: Vault, first: int, last: int, log: bytes = LOG) -> None:
    """A committed log backup of that range."""
    job = Job(vault.store)
    result: BackupResult = replace(
        RESULT,
        type=PointType.LOG,
        lineage="1",
        first_lsn=first,
        last_lsn=last,
        reachable_from=None,
        forks=(),
        histories={},
    )
    with job.writer:
        with job.writer.sink.stream("wal") as stream:
            stream.write(log[first:last])
        job.commit(result)


def test_a_restore_that_planned_with_pieces_reads_on_when_log_backups_seal_them(
    vault: Vault,
) -> None:
    row = [ship(vault.store, first, first + 7_000) for first in range(0, 56_000, 7_000)]
    source = TailSource(
        vault.store,
        ITEM.id,
        row,
        vault.keys,
        first_lsn=500,
        sealed=lambda *where: vault.sealed_log(ITEM.id, *where),
    )
    assert source.read_frame("wal", 0) == LOG[500:7_000]
    seal_range(vault, 0, 30_011)
    seal_range(vault, 30_011, 56_000)
    delete_pieces(vault.store, ITEM.id, row[1:])
    assert content(source) == LOG[500:56_000]


def test_other_bytes_in_the_place_of_a_sealed_piece_are_refused(vault: Vault) -> None:
    row = [ship(vault.store, 0, 7_000)]
    seal_range(vault, 0, 10_000, log=b"x" * 10_000)
    delete_pieces(vault.store, ITEM.id, row)
    source = TailSource(
        vault.store,
        ITEM.id,
        row,
        vault.keys,
        first_lsn=0,
        sealed=lambda *where: vault.sealed_log(ITEM.id, *where),
    )
    with pytest.raises(ObjectDamaged, match="same bytes"):
        source.read_frame("wal", 0)


def test_a_piece_that_is_gone_and_sealed_by_nothing_is_missed(vault: Vault) -> None:
    row = [ship(vault.store, 0, 7_000)]
    seal_range(vault, 0, 6_999)
    with pytest.raises(ObjectNotFound):
        vault.sealed_log(ITEM.id, "1", 0, 7_000)
    assert vault.sealed_log(ITEM.id, "1", 10, 6_999) == LOG[10:6_999]
    assert row


def test_a_catalog_holds_shipped_log_and_notes_what_is_not_understood(vault: Vault) -> None:
    piece = ship(vault.store, 0, 100)
    vault.store.put(f"items/{ITEM.id}/tail/n1/notes.txt", b"")
    catalog = vault.catalog(ITEM)
    assert catalog.shipped == (piece,)
    assert catalog.points == ()
    assert "notes.txt" in catalog.notes[0]


def test_steps_of_a_tail_are_cut_where_the_engines_facts_change(vault: Vault) -> None:
    one = ship(vault.store, 0, 100)
    changed = put_piece(
        vault.store,
        ITEM.id,
        ShippedPiece(100, 300, LOG[100:300], NOW, NOW, {"log_tail": None}),
        lineage="1",
        run=RUN,
        anchor_id=ANCHOR,
        facts=FACTS | {"settings": {"max_connections": "500"}},
    )
    seal_range(vault, 300, 300)
    step = replace(vault.points(ITEM.id)[0], id="tail", first_lsn=40, last_lsn=300, is_tail=True)
    parts = vault.tail_steps(ITEM.id, step, [one, changed])
    assert [(p.first_lsn, p.last_lsn, p.covers_until) for p, _, _ in parts] == [
        (40, 100, NOW),
        (100, 300, NOW),
    ]
    assert "settings" not in parts[0][1]
    assert parts[1][1]["settings"] == {"max_connections": "500"}
    assert b"".join(content(source) for _, _, source in parts) == LOG[40:300]
    (empty,) = vault.tail_steps(ITEM.id, replace(step, first_lsn=300), [])
    assert empty[1] == RESULT.facts
    assert (empty[2].size("wal"), empty[2].streams()) == (0, ["wal"])


def test_runs_have_names_of_their_own() -> None:
    assert new_run() != new_run()
