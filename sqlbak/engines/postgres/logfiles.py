"""Writes the log of a chain into a cluster's own pg_wal, for a server that recovers by itself."""

from __future__ import annotations

from pathlib import Path

from sqlbak.engines.postgres.frames import FrameReader
from sqlbak.engines.postgres.ground import write_file
from sqlbak.engines.postgres.server import ServerUser
from sqlbak.engines.postgres.walfeed import TablespaceInTheWay
from sqlbak.engines.postgres.walrecords import TablespaceFinder
from sqlbak.engines.postgres.walsource import WalChain
from sqlbak.progress import Progress
from sqlbak.stopping import StopSignal

__all__ = ["lay_out_histories", "lay_out_log"]


def lay_out_log(
    chain: WalChain,
    directory: Path,
    *,
    user: ServerUser,
    frames: FrameReader,
    progress: Progress,
    stop: StopSignal,
) -> tuple[str, ...]:
    """Every segment of ``chain``. Returns the paths of tablespaces that the log creates;
    TablespaceInTheWay when one of them is there on this machine."""
    progress.phase("log", chain.last_lsn - chain.first_lsn)
    finder = TablespaceFinder(chain.segment_size)
    created: list[str] = []
    for name, lsn in chain.segments():
        path = directory / "pg_wal" / name
        write_file(path, b"", user)
        position = lsn
        with path.open("r+b", buffering=0) as out:
            for piece in chain.segment(frames, lsn):
                stop.check()
                created += finder.feed(position, piece)
                position += len(piece)
                progress.advance(len(piece))
                while piece:
                    piece = piece[out.write(piece) :]
    for path_text in dict.fromkeys(created):
        if Path(path_text).exists():
            raise TablespaceInTheWay(path_text)
    return tuple(dict.fromkeys(created))


def lay_out_histories(chain: WalChain, directory: Path, user: ServerUser) -> None:
    """The history of every timeline that is known."""
    for name, content in chain.history_files().items():
        write_file(directory / "pg_wal" / name, content, user)
