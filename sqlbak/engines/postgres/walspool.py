"""The spool: the folder through which a recovering server gets its log from another process.

The server asks for files through ``restore_command``, a few lines of shell that look into the
spool: it exits 0 when it has put the file in place, 1 only when it was written there that the file
provably does not exist, and 255 for everything else, above all when nobody feeds. PostgreSQL takes
1 as "the log ends here" and goes on to promote; above 125 it gives up (xlogarchive.c). So "absent"
is a number that no shell ends with by itself, and becomes 1 only in the command's last words.
"""

from __future__ import annotations

import io
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from sqlbak.engines.postgres.ground import create_file
from sqlbak.engines.postgres.server import ServerUser

__all__ = ["WalSpool"]

_GIVE_UP_SECONDS = 60
_LOOK_SECONDS = 0.05
_FOLDERS = ("ready", "asked", "absent")
_SCRIPT_NAME = "fetch.sh"
_DRAFT = "segment.draft"

# $1: the file's name, $2: where the server wants it, relative to its data directory, $3: who wants
# it: when that process is gone, nobody does. Counting looks instead of asking the clock: date would
# be one more process a look.
_SCRIPT = """\
#!/bin/sh
spool=${{0%/*}}
looks=0
last=
while [ ! -e "$spool/shut" ]; do
  if [ -e "$spool/ready/$1" ]; then
    mv -f "$spool/ready/$1" "$2" || exit 255
    [ ! -e "$spool/asked/$1" ] || rm -f "$spool/asked/$1"
    exit 0
  fi
  [ ! -e "$spool/absent/$1" ] || exit 9
  [ -e "$spool/asked/$1" ] || : > "$spool/asked/$1" || exit 255
  beat=
  read -r beat < "$spool/beat" || exit 255
  if [ "$beat" = "$last" ]; then looks=$((looks + 1)); else looks=0; fi
  last=$beat
  [ "$looks" -lt {looks} ] || break
  kill -0 "$3" 2>/dev/null || exit 255
  sleep 0.05 || sleep 1
done
cat "$spool/advice" >&2
exit 255
"""
_COMMAND = "/bin/sh {script} %f %p $PPID; case $? in 0) exit 0;; 9) exit 1;; esac; exit 255"


@dataclass(frozen=True, slots=True)
class WalSpool:
    """The spool in ``directory``, which must be on the file system of the data directory.
    ``advice``: what the server's log says where nobody feeds. The script gives up when nobody has
    fed for ``give_up_seconds``."""

    directory: Path
    user: ServerUser
    advice: str = ""
    give_up_seconds: float = _GIVE_UP_SECONDS

    def restore_command(self, shown: Path | None = None) -> str:
        """The setting's value. The server expands %f and %p, and takes %% for a percent sign.
        ``shown``: the directory as the command names it, relative to the data directory."""
        return _COMMAND.format(
            script=_quoted((shown or self.directory) / _SCRIPT_NAME).replace("%", "%%")
        )

    def make(self) -> None:
        """Make it where it is not yet, shut."""
        for folder in (self.directory, *(self.directory / name for name in _FOLDERS)):
            if not folder.is_dir():
                folder.mkdir(mode=0o700)
                self.user.own(folder)
        self.shut()
        looks = max(2, round(self.give_up_seconds / _LOOK_SECONDS))
        self._write("advice", f"{self.advice}\n".encode())
        self._write(_SCRIPT_NAME, _SCRIPT.format(looks=looks).encode())

    def open(self) -> None:
        """Begin to feed: nothing that lay in it counts any more."""
        self.make()
        for folder in _FOLDERS:
            for name in os.listdir(self.directory / folder):  # noqa: PTH208 - names only
                (self.directory / folder / name).unlink(missing_ok=True)
        self.beat(0)
        (self.directory / "shut").unlink()

    def shut(self) -> None:
        """From here on the server is told nothing but 255."""
        self._write("shut", b"")

    def beat(self, number: int) -> None:
        """Somebody feeds: another number each second."""
        self._write("beat", b"%d\n" % number)

    def asked(self) -> list[str]:
        """The names of the files that the server waits for."""
        return sorted(os.listdir(self.directory / "asked"))  # noqa: PTH208 - names only

    def answered(self, name: str) -> None:
        """It is ready, or said to be absent."""
        (self.directory / "asked" / name).unlink(missing_ok=True)

    def ready(self) -> list[str]:
        """The names of the files that the server may take."""
        return os.listdir(self.directory / "ready")  # noqa: PTH208 - names only

    def has(self, name: str) -> bool:
        """Whether the server may take that file."""
        return (self.directory / "ready" / name).exists()

    def take_back(self, name: str) -> None:
        """The file is not wanted any more."""
        (self.directory / "ready" / name).unlink(missing_ok=True)

    def put_absent(self, name: str) -> None:
        """It is proven that there is no such file."""
        self._write(f"absent/{name}", b"")

    def put_small(self, name: str, content: bytes) -> None:
        """A whole file."""
        self._write(f"ready/{name}", content)

    def draft(self) -> io.FileIO:
        """A new file, for content that comes piece by piece; not buffered."""
        return self._new(_DRAFT)

    def put_draft(self, name: str) -> None:
        """The draft is whole, and is that file."""
        (self.directory / _DRAFT).rename(self.directory / "ready" / name)

    def _write(self, name: str, content: bytes) -> None:
        """Make or replace one file; it is whole as soon as it is there."""
        draft = f"draft.{threading.get_ident()}"
        with self._new(draft) as out:
            out.write(content)
        (self.directory / draft).rename(self.directory / name)

    def _new(self, name: str) -> io.FileIO:
        """The folder is the server's, who must not be able to lead us elsewhere by a link."""
        path = self.directory / name
        path.unlink(missing_ok=True)
        return io.FileIO(create_file(path, self.user), "wb")


def _quoted(path: Path) -> str:
    text = str(path)
    return "'" + text.replace("'", "'\\''") + "'"
