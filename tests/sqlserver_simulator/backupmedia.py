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
        """Open every device: on the media set that is there already, or on a new one ([D] BACKUP,
        Media set options)."""
        wish = self.wish
        for place in wish.places:
            check_name(place, backing_up=True)
        present = [] if "FORMAT" in wish.options else self._present()
        if present:
            self._check_same_media(present)
            self._check_same_structure(present[0].family)
            self.families = [each.family for each in present]
            self.position = 1 if "INIT" in wish.options else len(present[0].sets) + 1
        else:
            self.families = self._new_families(begun)
        append = bool(present) and "INIT" not in wish.options
        try:
            for place, family in zip(wish.places, self.families, strict=True):
                writer = open_for_backup(wish.instance, place, append=append, options=wish.options)
                self.writers.append(writer)
                if not append:
                    writer.write(media.family_block(family))
        except SqlError:
            for opened in self.writers:
                opened.abort(leave=False)
            self.writers = []
            raise
        for writer in self.writers:
            writer.write(media.start_block(self.position))

    def _present(self) -> list[media.ReadFamily]:
        found = []
        for place in self.wish.places:
            data = read_existing(self.wish.instance, place)
            family = self._existing(data, place)
            if family is not None:
                found.append(family)
        return found

    def _check_same_structure(self, family: Family) -> None:
        """Compression is the media set's; encryption needs a new one ([D] "Backup compression",
        "Backup encryption")."""
        options = self.wish.options
        if family.is_compressed and "COMPRESSION" not in options:
            options["COMPRESSION"] = {}
        wanted = "ENCRYPTION" if "ENCRYPTION" in options else None
        if not family.is_compressed and options.pop("COMPRESSION", None) is not None:
            wanted = "COMPRESSION"
        if wanted is not None:
            raise SqlError(
                3098,
                f"The backup cannot be performed because '{wanted}' was requested after the media "
                "was formatted with an incompatible structure. To append to this media set, either "
                f"omit '{wanted}' or specify 'NO_{wanted}'. Alternatively, you can create a new "
                "media set by using WITH FORMAT in your BACKUP statement. If you use WITH FORMAT "
                "on an existing media set, all its backup sets will be overwritten.",
                16,
                2,
            )

    def _new_families(self, begun: datetime) -> list[Family]:
        options = self.wish.options
        media_set = uuid.uuid4()
        return [
            Family(
                media_set, number, len(self.wish.places), uuid.uuid4(),
                begun.replace(microsecond=0), options.get("COMPRESSION") is not None,
                "ENCRYPTION" in options, options.get("MEDIANAME"),
                options.get("MEDIADESCRIPTION"), int(options.get("BLOCKSIZE") or 4096),
            )
            for number in range(1, len(self.wish.places) + 1)
        ]  # fmt: skip

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
