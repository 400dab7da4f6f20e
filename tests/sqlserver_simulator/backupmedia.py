"""The media set that a BACKUP writes to: opened, appended to or made anew, and dealt over."""

from __future__ import annotations

import uuid
from datetime import datetime

from . import media
from .backupchecks import BackupWish
from .devices import Place, Writer, check_name, open_for_backup, read_existing
from .errors import SqlError
from .media import CHUNK, BackupSet, Family


class BackupMedia:
    """All families of one media set, open for one more set."""

    def __init__(self, wish: BackupWish) -> None:
        self.wish = wish
        self.writers: list[Writer] = []
        self.families: list[Family] = []
        self.position = 1
        self.turn = 0
        self.written = 0

    def _existing(self, data: bytes | None, place: Place) -> media.ReadFamily | None:
        if data is None:
            return None
        try:
            return media.read_family(data)
        except media.Unreadable:
            raise SqlError(
                3241,
                f"The media family on device '{place.name}' is incorrectly formed. SQL Server "
                "cannot process this media family.",
                16,
                0,
            ) from None

    def _check_same_media(self, present: list[media.ReadFamily]) -> None:
        count = present[0].family.count
        if len(present) != len(self.wish.places) or count != len(self.wish.places):
            raise SqlError(
                3231,
                f'The media loaded on "{self.wish.places[0].name}" is formatted to support {count} '
                f"media families, but {len(self.wish.places)} media families are expected "
                "according to the backup device specification.",
            )

    def open(self, begun: datetime) -> None:
        """The media set that the devices make: a new one, or the one that is there already
        ([D] BACKUP, Media set options)."""
        for place in self.wish.places:
            check_name(place, backing_up=True)
        existing = (
            []
            if "FORMAT" in self.wish.options
            else [read_existing(self.wish.instance, place) for place in self.wish.places]
        )
        found = [
            self._existing(data, place)
            for data, place in zip(existing, self.wish.places, strict=False)
        ]
        present = [each for each in found if each is not None]
        compressed = self.wish.options.get("COMPRESSION") is not None
        encrypted = "ENCRYPTION" in self.wish.options
        if present:
            self._check_same_media(present)
            old = [each.family for each in present]
            compressed = old[0].is_compressed
            if compressed and "COMPRESSION" not in self.wish.options:
                self.wish.options["COMPRESSION"] = {}
            elif not compressed and self.wish.options.pop("COMPRESSION", None) is not None:
                raise SqlError(
                    3098,
                    "The backup cannot be performed because 'COMPRESSION' was requested after "
                    "the media was formatted with an incompatible structure. To append to this "
                    "media set, either omit 'COMPRESSION' or specify 'NO_COMPRESSION'. "
                    "Alternatively, you can create a new media set by using WITH FORMAT in your "
                    "BACKUP statement.",
                )
            if encrypted:
                raise SqlError(3095, "The backup cannot be performed because 'ENCRYPTION' was "
                               "requested after the media was formatted with an incompatible "
                               "structure.")  # fmt: skip
            position = 1 if "INIT" in self.wish.options else len(present[0].sets) + 1
            families = old
        else:
            media_set = uuid.uuid4()
            families = [
                Family(
                    media_set, number, len(self.wish.places), uuid.uuid4(),
                    begun.replace(microsecond=0), compressed, encrypted,
                    self.wish.options.get("MEDIANAME"), self.wish.options.get("MEDIADESCRIPTION"),
                    int(self.wish.options.get("BLOCKSIZE") or 4096),
                )
                for number in range(1, len(self.wish.places) + 1)
            ]  # fmt: skip
            position = 1
        append = bool(present) and "INIT" not in self.wish.options
        for place, family in zip(self.wish.places, families, strict=True):
            try:
                writer = open_for_backup(
                    self.wish.instance, place, append=append, options=self.wish.options
                )
            except SqlError:
                for opened in self.writers:
                    opened.abort(leave=False)
                raise
            self.writers.append(writer)
            if not append:
                writer.write(media.family_block(family))
        for writer in self.writers:
            writer.write(media.start_block(position))
        self.families, self.position = families, position

    def deal(self, data: bytes) -> None:
        """Write a piece of the payload, round-robin over the families."""
        for at in range(0, len(data), CHUNK):
            piece = data[at : at + CHUNK]
            self.writers[self.turn % len(self.writers)].write(media.data_block(piece))
            self.turn += 1
            self.written += len(piece)

    def finish(self, facts: BackupSet) -> None:
        """End the set and close every device."""
        for writer in self.writers:
            writer.write(media.end_block(facts))
        for writer in self.writers:
            writer.close()

    def abort(self) -> None:
        """What a failed backup does with its devices."""
        leave = self.wish.instance.faults.leaves_partial_files
        for writer in self.writers:
            writer.abort(leave=leave)
