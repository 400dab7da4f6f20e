"""Where a restore puts the tablespaces: below the target, or where the operator says."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlbak.engines.postgres.chain import Chain, check_target, held_bytes
from sqlbak.engines.postgres.server import ServerUser
from sqlbak.errors import TargetNotUsable, UnknownName

__all__ = ["INSIDE", "TablespacePlaces", "choose_places"]

INSIDE = "sqlbak_tablespaces"
"""The folder of the target for tablespaces that nobody chose a place for."""


@dataclass(frozen=True, slots=True)
class TablespacePlaces:
    """The place of every tablespace that does not lie inside the data directory, by its id.
    ``outside``: those that the operator chose a directory for."""

    places: Mapping[int, Path]
    outside: tuple[Path, ...]

    @property
    def are_inside(self) -> bool:
        """Whether some lie in the folder of the target."""
        return len(self.places) > len(self.outside)


def choose_places(
    chain: Chain,
    directory: Path,
    wanted: Mapping[str, Path],
    *,
    user: ServerUser,
    is_started: bool,
    is_reusable: Callable[[Path], bool],
) -> TablespacePlaces:
    """Places for the chain's tablespaces; ``wanted`` are directories by the location that a
    tablespace had on the source, ``is_started`` as for ``check_target``. ``is_reusable``: whether
    what lies in a directory may be kept or replaced.

    Raises UnknownName for a location that the chain does not have; TargetNotUsable for a directory
    that is not absent or empty, is too small, or lies in or around the target or another one.
    Nothing is written.
    """
    movable = {os.path.normpath(t.location): t.oid for t in chain.tablespaces if not t.is_in_place}
    places = {oid: directory / INSIDE / str(oid) for oid in movable.values()}
    chosen: list[Path] = []
    for location, wish in wanted.items():
        oid = movable.get(os.path.normpath(location))
        if oid is None:
            raise UnknownName("tablespace at", location, sorted(movable))
        place = wish.absolute()
        for other in (directory, *chosen):
            if _touch(place, other):
                raise TargetNotUsable(
                    f"the tablespace cannot lie in {place}: {other} is restored too, and one lies "
                    "in the other",
                    hint="choose a directory of its own for each tablespace",
                )
        needed = sum(
            step.source.size(name)
            for step in {id(step): step for step in (chain.full, chain.base)}.values()
            for name in step.source.streams()
            if name == f"{oid}.tar"
        )
        check_target(
            place,
            user=user,
            needed_bytes=needed,
            is_started=is_started,
            held_bytes=held_bytes(place) if is_reusable(place) else None,
        )
        chosen.append(place)
        places[oid] = place
    return TablespacePlaces(places, tuple(chosen))


def _touch(one: Path, other: Path) -> bool:
    one, other = one.resolve(), other.resolve()
    return one.is_relative_to(other) or other.is_relative_to(one)
