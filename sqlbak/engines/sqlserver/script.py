"""A restore as stock files and a T-SQL script, to be run in SSMS or sqlcmd without sqlbak.

The files are SQL Server's own .bak and .trn, byte for byte; the script is the chain with the same
rules that sqlbak itself follows: NORECOVERY on every step, STOPAT on the last log, recovery apart.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sqlbak.engines.port import RestoreStep
from sqlbak.engines.sqlserver.headers import read_header
from sqlbak.engines.sqlserver.restoring import DatabaseChain, stop_of
from sqlbak.engines.sqlserver.restoring_clock import StopAt
from sqlbak.engines.sqlserver.restoring_delivery import is_by_url, staged, url_devices, write_stream
from sqlbak.engines.sqlserver.statements import identifier, literal, region_option
from sqlbak.engines.sqlserver.target_files import BackedUpFile, backed_up_files, safe_file_name
from sqlbak.errors import TargetNotUsable
from sqlbak.model import PointType
from sqlbak.progress import Progress
from sqlbak.stopping import StopSignal

__all__ = ["SCRIPT_NAME", "WrittenFiles", "restore_script", "write_files"]

SCRIPT_NAME = "restore.sql"
_MASTER = "master"
_IN_PLACE = frozenset({"model", "msdb"})
"""System databases that a script can restore only over what is there."""


@dataclass(frozen=True, slots=True)
class WrittenFiles:
    """What was written: the script, and the files that it restores, in order."""

    directory: Path
    script: Path
    files: tuple[Path, ...]


def write_files(
    chain: DatabaseChain,
    directory: Path,
    *,
    database: str,
    progress: Progress,
    stop: StopSignal,
) -> WrittenFiles:
    """Write the chain's backups and the script that restores them as ``database`` into
    ``directory``, which must be empty or absent. TargetNotUsable; InstantUnreachable for an instant
    in a repeated hour; what the vault raises."""
    # A script that needs nothing but its folder runs on every server.
    chain = replace(chain, steps=tuple(map(staged, chain.steps)))
    names = _file_names(chain.steps)
    script = restore_script(chain, directory, database=database)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise TargetNotUsable(
                f"{directory} is not empty", hint="name an empty or absent directory"
            )
        written: list[Path] = []
        for step, streams in zip(chain.steps, names, strict=True):
            for stream, name in streams:
                progress.phase(f"writing {name}", step.source.size(stream))
                path = directory / name
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
                with os.fdopen(descriptor, "wb") as out:
                    write_stream(step.source, stream, out, stop.check)
                written.append(path)
        path = directory / SCRIPT_NAME
        path.write_text(script, encoding="utf-8-sig", newline="\r\n")
    except OSError as error:
        raise TargetNotUsable(
            f"{directory} cannot be written: {error.strerror}", hint="choose another directory"
        ) from error
    return WrittenFiles(directory, path, tuple(written))


def restore_script(chain: DatabaseChain, directory: Path, *, database: str) -> str:
    """The script alone. The server has to see ``directory`` under the path in ``@folder``."""
    stop_at = stop_of(chain)
    lines = [
        *_introduction(chain, database, None if stop_at is None else stop_at.literal),
        "USE [master];",
        "SET XACT_ABORT ON;",
        "",
        "-- The folder of these files, as the server sees it.",
        f"DECLARE @folder nvarchar(200) = {literal(f'{directory.absolute()}/')};",
    ]
    name = database.casefold()
    # System databases stay where they are.
    files = [] if name == _MASTER or name in _IN_PLACE else _files_of(chain.steps)
    if files:
        lines += [
            "-- Where the database's files go.",
            "DECLARE @data nvarchar(200) = CONVERT(nvarchar(200), "
            "SERVERPROPERTY('InstanceDefaultDataPath'));",
            "DECLARE @log nvarchar(200) = CONVERT(nvarchar(200), "
            "SERVERPROPERTY('InstanceDefaultLogPath'));",
        ]
    places: dict[str, str] = {}
    for number, file in enumerate(files, start=1):
        folder = "@log" if file.type == "L" else "@data"
        name = safe_file_name(f"{database}_{number}_{file.logical_name}", file)
        lines.append(f"DECLARE @file{number} nvarchar(400) = {folder} + {literal(name)};")
        places[file.identity] = f"@file{number}"
    names = _file_names(chain.steps)
    for index, streams in enumerate(names, start=1):
        lines += [
            f"DECLARE @step{index}_{part} nvarchar(400) = @folder + {literal(name)};"
            for part, (_, name) in enumerate(streams, start=1)
        ]
    if name == _MASTER:
        return "\n".join([*lines, "", *_master(chain, names), ""])
    lines += ["", "BEGIN TRY"]
    seen: set[str] = set()
    for index, step in enumerate(chain.steps, start=1):
        is_last = index == len(chain.steps)
        lines += _step(chain, index, step, database, places, seen, is_last, stop_at)
    lines += [
        f"    RESTORE DATABASE {identifier(database)} WITH RECOVERY;",
        "    IF NOT EXISTS (SELECT * FROM sys.databases",
        f"                   WHERE name = {literal(database)} AND state_desc = N'ONLINE')",
        "        RAISERROR (N'the database is not ONLINE: do not use it', 16, 1);",
        "END TRY",
        "BEGIN CATCH",
        "    -- The database may be left RESTORING: DROP DATABASE, mend the cause, begin again.",
        "    THROW;",
        "END CATCH;",
        "",
    ]
    return "\n".join(lines)


def _introduction(chain: DatabaseChain, database: str, stop_at: str | None) -> list[str]:
    when = "the end of its last backup"
    if chain.stop_at is not None:
        when = f"{chain.stop_at.isoformat()}"
    elif chain.stop_lsn is not None:
        when = f"log position {chain.stop_lsn}"
    lines = [
        f"-- Restores {_comment(chain.database)} as {_comment(database)}, as of {when}.",
        "-- Run it in SSMS or with: sqlcmd -S SERVER -b -i restore.sql",
    ]
    if stop_at is not None:
        lines.append(f"-- STOPAT is the wall clock of the server that was backed up: {stop_at}.")
    if database.casefold() == _MASTER:
        lines += [
            "-- master is restored in single-user mode only (start SQL Server with -m), on the",
            "-- very version and build that it is from. The server stops by itself at the end.",
        ]
    elif database.casefold() in _IN_PLACE:
        lines += [
            "-- It replaces the one that is there, on the very version and build that it is from.",
            "-- Nobody else may use it meanwhile: stop SQL Server Agent and what else does.",
        ]
    if not chain.is_proven and any(step.point.type is PointType.LOG for step in chain.steps):
        lines.append(
            "-- Probable, not proven: if the last log says that the database is 'left in the "
            "restoring state', apply the next log before you recover it."
        )
    return [*lines, ""]


def _master(chain: DatabaseChain, names: Sequence[Sequence[tuple[str, str]]]) -> list[str]:
    """The one statement that master takes: no NORECOVERY, no MOVE, nothing behind it."""
    header = read_header(chain.steps[0].facts["header"])
    options = [
        "REPLACE",
        *([f"FILE = {header.position}"] if header.position > 1 else []),
        *(["CHECKSUM"] if header.has_checksums else []),
        "STATS = 10",
    ]
    if names[0]:
        devices = [f"DISK = @step1_{part}" for part in range(1, len(names[0]) + 1)]
    else:
        urls = url_devices(chain.steps[0])
        devices = [f"URL = {literal(device.name)}" for device in urls]
        options += region_option(urls, "RESTORE_OPTIONS")
    return [
        "RESTORE DATABASE [master]",
        f"    FROM {', '.join(devices)}",
        f"    WITH {', '.join(options)};",
    ]


def _comment(text: str) -> str:
    """Text that cannot end its comment."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _step(
    chain: DatabaseChain,
    index: int,
    step: RestoreStep,
    database: str,
    places: dict[str, str],
    seen: set[str],
    is_last: bool,
    stop_at: StopAt | None,
) -> list[str]:
    header = read_header(step.facts["header"])
    if is_by_url(step):
        devices = [f"URL = {literal(device.name)}" for device in url_devices(step)]
    else:
        count = len(step.facts.get("streams") or step.source.streams())
        devices = [f"DISK = @step{index}_{part}" for part in range(1, count + 1)]
    options = ["NORECOVERY"]
    if index == 1 and database.casefold() in _IN_PLACE:
        options.append("REPLACE")
    if step.point.type is PointType.LOG:
        before = chain.cuts.get(step.point.id)
        if is_last and chain.stop_lsn is not None and chain.stop_lsn < step.point.last_lsn:
            before = chain.stop_lsn
        if is_last and stop_at is not None:
            options.append(f"STOPAT = {literal(stop_at.literal)}")
        elif before is not None:
            options.append(f"STOPBEFOREMARK = {literal(f'lsn:{before}')}")
    for file in backed_up_files(step.facts.get("file_list") or ()):
        if file.identity in places and file.identity not in seen:
            seen.add(file.identity)
            options.append(f"MOVE {literal(file.logical_name)} TO {places[file.identity]}")
    if header.position > 1:
        options.append(f"FILE = {header.position}")
    options += [*(["CHECKSUM"] if header.has_checksums else []), "STATS = 10"]
    if is_by_url(step):
        options += region_option(url_devices(step), "RESTORE_OPTIONS")
    verb = "LOG" if step.point.type is PointType.LOG else "DATABASE"
    return [
        f"    RESTORE {verb} {identifier(database)}",
        f"        FROM {', '.join(devices)}",
        f"        WITH {', '.join(options)};",
    ]


def _files_of(steps: Sequence[RestoreStep]) -> list[BackedUpFile]:
    found: dict[str, BackedUpFile] = {}
    for step in steps:
        for file in backed_up_files(step.facts.get("file_list") or ()):
            found.setdefault(file.identity, file)
    return list(found.values())


def _file_names(steps: Sequence[RestoreStep]) -> list[list[tuple[str, str]]]:
    """For each step its streams, and the names of the files that they become."""
    names: list[list[tuple[str, str]]] = []
    for index, step in enumerate(steps, start=1):
        if is_by_url(step):
            names.append([])
            continue
        streams = [str(name) for name in step.facts.get("streams") or step.source.streams()]
        ending = "trn" if step.point.type is PointType.LOG else "bak"
        stem = f"{index:03d}-{step.point.type.value}"
        if len(streams) == 1:
            names.append([(streams[0], f"{stem}.{ending}")])
        else:
            names.append(
                [
                    (stream, f"{stem}-{part}of{len(streams)}.{ending}")
                    for part, stream in enumerate(streams, start=1)
                ]
            )
    return names
