"""What a log backup does with log that was shipped ahead of it.

The log backup holds the same range by bytes of its own. Before it is taken, the server is asked
whether its log is still the one that was shipped. If not, the server was put back to an older
state: it goes on as a new item, and the old one keeps what was shipped. After the log backup's
commit, and never before, the pieces that it holds are deleted.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlbak.engines.port import Engine
from sqlbak.errors import EngineError, LogRewritten, ObjectDamaged, ObjectNotFound
from sqlbak.model import Item, LogPosition, Note, NoteCode, Point, ShippedLog
from sqlbak.vault.tail import delete_pieces, read_piece
from sqlbak.vault.tail_runs import joined, runs_of, trunk_of
from sqlbak.vault.vault import Vault

__all__ = ["continuing_runs", "require_same_log", "seal"]


def continuing_runs(vault: Vault, item: Item, base: Point) -> list[list[ShippedLog]]:
    """The runs of shipped log that go on from the end of ``base`` without a gap, the one that
    reaches furthest first."""
    catalog = vault.catalog(item)
    rows = [
        joined(pieces, base.last_lsn)
        for pieces in runs_of(catalog.shipped, base.lineage).values()
        if _is_on(trunk_of(catalog, pieces), base)
    ]
    return sorted((row for row in rows if row), key=lambda row: row[-1].last_lsn, reverse=True)


def require_same_log(
    vault: Vault, item: Item, engine: Engine, base: Point, notes: list[Note]
) -> None:
    """LogRewritten when log that was shipped behind ``base`` is not the server's any more. What
    could not be found out goes to ``notes``."""
    for row in continuing_runs(vault, item, base):
        piece = row[-1]
        try:
            known = read_piece(vault.store, item.id, piece, vault.keys).known_by
            is_same = engine.is_same_log(LogPosition(piece.lineage, piece.last_lsn), known)
        except (ObjectDamaged, ObjectNotFound, EngineError) as error:
            blind = f"the log shipped so far was not compared: {error.message}"
            notes.append(Note(NoteCode.SHIPPED_LOG, blind))
            continue
        if is_same is False:
            raise LogRewritten(
                f"the log that was shipped up to {piece.covers_until or piece.finished_at} is not "
                "the server's any more, which was put back to an older state",
                hint="take a full backup; it starts a new chain",
            )


def seal(vault: Vault, item: Item, point: Point) -> int:
    """Delete the shipped log that the committed log backup ``point`` holds; how many pieces. Runs
    that ``point`` does not continue are left alone: theirs is the only copy."""
    catalog = vault.catalog(item)
    sealed: list[ShippedLog] = []
    for pieces in runs_of(catalog.shipped, point.lineage).values():
        if _is_on(trunk_of(catalog, pieces), point):
            sealed += [piece for piece in pieces if piece.last_lsn <= point.last_lsn]
    delete_pieces(vault.store, item.id, sealed)
    return len(sealed)


def _is_on(trunk: Sequence[Point], point: Point) -> bool:
    return any(one.id == point.id for one in trunk)
