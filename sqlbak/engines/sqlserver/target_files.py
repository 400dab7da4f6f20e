"""Where the files of a restored database go: a path for each, none of them anybody else's. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlbak.engines.sqlserver.rows import guid, number, text
from sqlbak.engines.sqlserver.target import Drive, ExistingDatabase, ServerFacts
from sqlbak.errors import TargetNotUsable

__all__ = [
    "BackedUpFile",
    "FilePlan",
    "backed_up_files",
    "file_plan",
    "missing_space",
    "safe_file_name",
]

_UNSAFE: Final = re.compile(r"[^\w.-]+", re.ASCII)
_LONGEST_NAME: Final = 100
_EXTENSIONS: Final = {"D": ".ndf", "L": ".ldf", "S": "", "F": ""}


@dataclass(frozen=True, slots=True)
class BackedUpFile:
    """One database file as RESTORE FILELISTONLY tells it. ``type``: D data, L log, S a folder
    (FILESTREAM, memory-optimized data), F full-text. ``identity`` stays when it is renamed."""

    logical_name: str
    type: str
    path: str
    size_bytes: int
    identity: str

    @property
    def file_name(self) -> str:
        """The last part of its path, whichever system it is from."""
        return re.split(r"[\\/]", self.path)[-1]


@dataclass(frozen=True, slots=True)
class FilePlan:
    """``paths``: where every file goes, by its logical name. ``steps``: for each step of the
    restore what it has to be told, as its backup is the first to have these files."""

    paths: Mapping[str, str]
    steps: tuple[Mapping[str, str], ...]
    files: tuple[BackedUpFile, ...]


def backed_up_files(file_list: Iterable[Mapping[str, Any]]) -> tuple[BackedUpFile, ...]:
    """The files of one backup set, from its file list."""
    return tuple(
        BackedUpFile(
            logical_name=text(row, "LogicalName") or "",
            type=(text(row, "Type") or "D").strip().upper(),
            path=text(row, "PhysicalName") or "",
            size_bytes=number(row, "Size") or 0,
            identity=guid(row, "UniqueId") or (text(row, "LogicalName") or "").casefold(),
        )
        for row in file_list
    )


def file_plan(
    lists: Sequence[Sequence[BackedUpFile]],
    *,
    database: str,
    moves: Mapping[str, str],
    server: ServerFacts,
    existing: ExistingDatabase | None,
    keeps_names: bool,
) -> FilePlan:
    """Choose a path for every file of the chain, whose file lists are ``lists``.

    ``moves`` decides first; then, where the database is replaced, the place that the file has
    there; else the server's own folders. ``keeps_names``: the database keeps its name, and so do
    its files. TargetNotUsable naming every path that cannot be taken.
    """
    chosen: dict[str, str] = {}
    steps: list[dict[str, str]] = []
    seen: dict[str, BackedUpFile] = {}
    taken: set[str] = set()
    problems: list[str] = []
    own = {} if existing is None else {f.logical_name.casefold(): f.path for f in existing.files}
    wanted = {name.casefold(): path for name, path in moves.items()}
    known = {each.logical_name.casefold() for listed in lists for each in listed}
    others = {
        file.path.casefold(): server.database_names.get(file.database_id, "another database")
        for file in server.files
        if existing is None or file.database_id != existing.database_id
    }
    for name in moves:
        if name.casefold() not in known:
            names = sorted({each.logical_name for listed in lists for each in listed})
            problems.append(
                f"--move names the file {name}, which the backup does not have; it has "
                + ", ".join(names)
            )
    for listed in lists:
        step: dict[str, str] = {}
        for file in listed:
            if file.identity in seen:
                continue
            seen[file.identity] = file
            key = file.logical_name.casefold()
            path = wanted.get(key) or own.get(key)
            if path is None:
                path = _free_path(file, database, server, taken, others, keeps_names=keeps_names)
            if path is None:
                problems.append(
                    f"the server does not say where its files go: say where {file.logical_name} "
                    "goes with --move"
                )
                continue
            if path.casefold() in taken:
                problems.append(f"two files would go to {path}")
            # On Linux another database may have a file whose name differs in case only.
            if path.casefold() in others and path not in own.values():
                problems.append(f"{path} belongs to {others[path.casefold()]}")
            taken.add(path.casefold())
            chosen[file.logical_name] = path
            step[file.logical_name] = path
        steps.append(step)
    if problems:
        raise TargetNotUsable(
            f"{server.name}: the files of {database} cannot be placed: " + "; ".join(problems),
            hint="say where they go with --move LOGICAL=PATH",
        )
    return FilePlan(chosen, tuple(steps), tuple(seen.values()))


def _free_path(
    file: BackedUpFile,
    database: str,
    server: ServerFacts,
    taken: set[str],
    others: Mapping[str, str],
    *,
    keeps_names: bool,
) -> str | None:
    """A path in the server's own folder for such files that nobody has."""
    folder = server.log_path if file.type == "L" else server.data_path
    folder = folder or server.data_path or server.log_path
    if folder is None:
        return None
    separator = "\\" if "\\" in folder and "/" not in folder else "/"
    stem = file.file_name if keeps_names else f"{database}_{file.logical_name}"
    name = safe_file_name(stem.rpartition(".")[0] or stem if keeps_names else stem, file)
    stem, dot, ending = name.rpartition(".") if "." in name else (name, "", "")
    for number_of in range(1, 1000):
        suffix = "" if number_of == 1 else f"_{number_of}"
        path = f"{folder.rstrip(separator)}{separator}{stem}{suffix}{dot}{ending}"
        if path.casefold() not in taken and path.casefold() not in others:
            return path
    return None


def safe_file_name(stem: str, file: BackedUpFile) -> str:
    """``stem`` as a file name that every system takes, with the ending that the file had."""
    _, dot, extension = file.file_name.rpartition(".")
    ending = f".{extension}" if dot else _EXTENSIONS.get(file.type, "")
    plain = _UNSAFE.sub("_", stem)[:_LONGEST_NAME].strip("._") or "database"
    return plain.replace(".", "_") + _UNSAFE.sub("_", ending)


def missing_space(
    plan: FilePlan, drives: Sequence[Drive], existing: ExistingDatabase | None
) -> list[str]:
    """One sentence for each drive that is too small; what the server does not tell is left to its
    own check. The files that are replaced give their room."""
    needed: dict[str, int] = {}
    by_name = {file.logical_name: file for file in plan.files}
    for name, path in plan.paths.items():
        drive = _drive_of(path, drives)
        if drive is not None:
            needed[drive.path] = needed.get(drive.path, 0) + by_name[name].size_bytes
    for file in existing.files if existing is not None else ():
        drive = _drive_of(file.path, drives)
        if drive is not None and drive.path in needed:
            needed[drive.path] -= file.size_bytes
    free = {drive.path: drive.free_bytes for drive in drives}
    return [
        f"{path} has {free[path]} bytes free, and the files need {size}"
        for path, size in sorted(needed.items())
        if size > free[path]
    ]


def _drive_of(path: str, drives: Sequence[Drive]) -> Drive | None:
    holding = [drive for drive in drives if path.casefold().startswith(drive.path.casefold())]
    return max(holding, key=lambda drive: len(drive.path), default=None)
