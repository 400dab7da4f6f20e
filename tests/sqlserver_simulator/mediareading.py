"""Opening the devices of a RESTORE: all families of one media set, one position of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import media
from .devices import Place, check_name, read_device
from .errors import SqlError
from .media import BackupSet, ReadFamily, StoredSet

if TYPE_CHECKING:
    from .instance import Instance


@dataclass(slots=True)
class OpenMedia:
    """Families as named in the statement, and where they are."""

    places: list[Place]
    families: list[ReadFamily]

    def stored(self, position: int) -> StoredSet:
        """The set at a position. SqlError 3287 beyond the last one (captured)."""
        for stored in self.families[0].sets:
            if stored.position == position:
                if stored.facts is None:
                    raise unfinished(stored, self.places[0])
                return stored
        raise SqlError(
            3287,
            f"The file ID {position} on device '{self.places[0].name}' is incorrectly formed and "
            "can not be read.",
        )

    def facts(self, position: int) -> BackupSet:
        found = self.stored(position).facts
        assert found is not None
        return found

    def require_all(self) -> None:
        """SqlError 3132 unless every family of the media set is named."""
        first = self.families[0].family
        for place, each in zip(self.places, self.families, strict=True):
            if each.family.media_set != first.media_set:
                raise SqlError(
                    3258,
                    f'The volume on the device "{place.name}" is not part of the media set that is '
                    "currently being processed. Ensure that the backup devices are loaded with the "
                    "correct media.",
                )
        numbers = {each.family.number for each in self.families}
        if len(numbers) != len(self.families):
            raise SqlError(
                3227,
                f'The backup media on "{self.places[-1].name}" is part of media family '
                f"{self.families[-1].family.number} which has already been processed on "
                f'"{self.places[0].name}". Ensure that backup devices are correctly specified. For '
                "tape devices, ensure that the correct volumes are loaded.",
            )
        if len(self.families) != first.count:
            raise SqlError(
                3132,
                f"The media set has {first.count} media families but only {len(self.families)} are "
                "provided. All members must be provided.",
            )

    def contents(self, position: int) -> list[Any]:
        """The segments of a set's payload. SqlError 3203 or 3183 where it is damaged."""
        ordered = sorted(self.families, key=lambda each: each.family.number)
        name = self.places[0].name
        for place, each in zip(self.places, self.families, strict=True):
            for stored in each.sets:
                if stored.position == position and stored.facts is None:
                    raise unfinished(stored, place)
        try:
            return media.segments(media.gather(ordered, position))
        except media.Unreadable as error:
            if error.truncated:
                raise SqlError(
                    3203, f'Read on "{name}" failed: 38(Reached the end of the file.)'
                ) from error
            raise SqlError(3189, "Damage to the backup set was detected.") from error


def unfinished(stored: StoredSet, place: Place) -> SqlError:
    """A set without its end: written by a backup that died, or truncated later."""
    if stored.is_cut:
        return SqlError(3203, f'Read on "{place.name}" failed: 38(Reached the end of the file.)')
    return SqlError(
        3256,
        f"The backup set on device '{place.name}' was terminated while it was being created and is "
        "incomplete. RESTORE sequence is terminated abnormally.",
    )


def open_media(instance: Instance, places: list[Place], options: dict[str, Any]) -> OpenMedia:
    """Read the headers of every device. SqlError 3201, 3241 or 3254."""
    families = []
    for place in places:
        check_name(place, backing_up=False)
        data = read_device(instance, place, options)
        try:
            families.append(media.read_family(data))
        except media.Unreadable as error:
            if error.where == "empty":
                raise SqlError(3254, f"The volume on device '{place.name}' is empty.") from error
            raise SqlError(
                3241,
                f"The media family on device '{place.name}' is incorrectly formed. SQL Server "
                "cannot process this media family.",
                16,
                0,
            ) from error
    return OpenMedia(places, families)
