"""Random histories and what is left of their backups, for hypothesis."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from hypothesis import strategies as st

from sqlbak.model import Catalog, PointType
from sqlbak.restore.estimate import RestoreRates
from tests.restore.history import TICK, Server


@dataclass(frozen=True)
class Story:
    """A server's true history, and the catalog that survived of its backups."""

    server: Server
    catalog: Catalog

    def lineages(self) -> list[str]:
        return sorted({point.lineage for point in self.catalog.points})

    def instants(self) -> list[datetime]:
        """Every instant that any point names, and one tick before and after each."""
        named = {
            instant
            for point in self.catalog.points
            for instant in (
                point.started_at,
                point.finished_at,
                point.reachable_from,
                point.covers_until,
            )
            if instant is not None
        }
        return sorted({instant + shift * TICK for instant in named for shift in (-1, 0, 1)})


def rates() -> st.SearchStrategy[RestoreRates]:
    """For points of a few bytes: time is all, or bytes are, or steps are, or two of them tie."""
    return st.builds(
        RestoreRates,
        data_bytes_per_second=st.sampled_from([1, 2, 5, 10**12]),
        log_bytes_per_second=st.sampled_from([1, 2, 5, 10**12]),
        microseconds_a_step=st.sampled_from([0, 1, 500_000, 2_000_000]),
    )


@st.composite
def stories(
    draw: st.DrawFn,
    *,
    most_steps: int = 20,
    forks: bool = True,
    set_back: bool = True,
    overlaps: bool = True,
    losses: bool = True,
) -> Story:
    """A short history; forks, clock steps, overlapping and lost backups where allowed."""
    server = Server()
    if draw(st.booleans()):
        server.data(PointType.FULL, during=1, size=3, base=None, copy_only=False)
    kinds = ["commit", "commit", "log", "log", "log", "full", "differential"]
    kinds += ["fork", "switch"] if forks else []
    kinds += ["set back"] if set_back else []
    for kind in draw(st.lists(st.sampled_from(kinds), min_size=5, max_size=most_steps)):
        size = draw(st.integers(1, 4))
        if kind == "commit":
            server.commit(after=draw(st.integers(1, 3)), length=draw(st.integers(1, 2)))
        elif kind == "full":
            server.data(
                PointType.FULL,
                during=draw(st.integers(0, 2)),
                size=size + 3,
                base=None,
                copy_only=draw(st.sampled_from([False, False, True])),
            )
        elif kind == "differential":
            fulls = [p for p in server.points if p.type is PointType.FULL]
            mine = [p for p in fulls if p.lineage in dict(server.path(server.current))]
            if mine or fulls:
                server.data(
                    PointType.DIFFERENTIAL,
                    during=draw(st.integers(0, 2)),
                    size=size,
                    base=draw(st.sampled_from(mine or fulls)),
                    copy_only=False,
                )
        elif kind == "log":
            server.log(
                back=draw(st.sampled_from([0, 0, 0, 1, 2] if overlaps else [0])),
                heartbeat=draw(st.booleans()),
                racing=draw(st.sampled_from([0, 0, 1])),
                size=size,
                bulk=draw(st.sampled_from([False, False, False, True])),
                copy_only=draw(st.sampled_from([False] * 5 + [True])),
            )
        elif kind == "fork" and len(server.lsn) < 4:
            parent = draw(st.sampled_from(sorted(server.lsn)))
            server.fork(parent, draw(st.sampled_from(server.boundaries(parent))))
        elif kind == "switch":
            server.current = draw(st.sampled_from(sorted(server.lsn)))
        elif kind == "set back":
            server.set_back(draw(st.integers(1, 8)))
    points = list(server.points)
    if losses:
        points = [p for p in points if draw(st.integers(0, 7)) < 7]
    if overlaps and points and draw(st.booleans()):
        twin = draw(st.sampled_from(points))
        points.append(replace(twin, id=twin.id + "-twin", size_bytes=draw(st.integers(1, 6))))
    points = draw(st.permutations(points))
    return Story(server, server.catalog(points))
