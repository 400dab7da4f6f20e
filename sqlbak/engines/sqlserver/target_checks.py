"""Whether a chain can be restored to a server, found out before anything of it is touched. Pure.

Everything that stands in the way is told at once, with what to do about each. What cannot be known
here (rights, what the disk really takes) the server itself refuses before it touches anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlbak.engines.port import DatabaseTarget, TailChoice
from sqlbak.engines.sqlserver.headers import BackupHeader, read_header
from sqlbak.engines.sqlserver.rows import number, text
from sqlbak.engines.sqlserver.statements import identifier
from sqlbak.engines.sqlserver.target import ExistingDatabase, ServerFacts
from sqlbak.engines.sqlserver.target_files import (
    FilePlan,
    backed_up_files,
    file_plan,
    missing_space,
)
from sqlbak.errors import FeatureUnsupported, TargetNotUsable

__all__ = ["CheckedTarget", "check_target"]

_SYSTEM: Final = frozenset({"master", "tempdb", "model", "msdb", "mssqlsystemresource"})
_EXPRESS: Final = 4
_AZURE: Final = frozenset({5, 6, 8, 11})
_GIB: Final = 1 << 30
_VERSIONS: Final = {
    11: "2012",
    12: "2014",
    13: "2016",
    14: "2017",
    15: "2019",
    16: "2022",
    17: "2025",
}


@dataclass(frozen=True, slots=True)
class CheckedTarget:
    """What the restore may do. ``gives_up_tail``: REPLACE is needed, as log of the old database is
    in no backup; ``takes_tail``: it is to be backed up first. ``ends_sessions``: that is asked for.
    ``notes``: what could not be checked."""

    files: FilePlan
    gives_up_tail: bool
    takes_tail: bool
    ends_sessions: bool
    notes: tuple[str, ...]


def check_target(
    facts: Sequence[Mapping[str, Any]],
    *,
    source_database: str,
    target: DatabaseTarget,
    server: ServerFacts,
    existing: ExistingDatabase | None,
) -> CheckedTarget:
    """Check the manifests' ``facts`` of a chain, in its order, against the server.

    Raises:
        UsageError: the target's name is none.
        FeatureUnsupported: a system database, or a server that restores no backups.
        TargetNotUsable: all that stands in the way, at once.
    """
    headers = [read_header(each["header"]) for each in facts]
    name = target.name
    identifier(name)
    where = f"{server.name}/{name}"
    if name.casefold() in _SYSTEM or source_database.casefold() == "master":
        raise FeatureUnsupported(
            f"{where}: system databases are not restored by sqlbak",
            hint="docs/sql-server.md has the steps for master, model and msdb; "
            "sqlbak restore --files DIR writes the backups for them",
        )
    if server.engine_edition in _AZURE:
        raise FeatureUnsupported(
            f"{server.name}: {server.edition} restores no native backups from here",
            hint="restore on a SQL Server, on a machine or in a container: --instance NAME",
        )
    problems: list[tuple[str, str]] = []
    notes: list[str] = []
    _check_version(facts, headers, server, problems)
    _check_keys(facts, server, problems, notes)
    gives_up, takes = False, False
    if existing is not None:
        gives_up, takes = _check_existing(headers[0], target, existing, where, problems)
    elif target.replaces:
        problems.append(
            (
                f"there is no database {name} that could be replaced",
                "leave out --overwrite; if it was renamed, name it as it is called now: --as NAME",
            )
        )
    files = file_plan(
        [backed_up_files(each.get("file_list") or ()) for each in facts],
        database=name,
        moves=target.moves,
        server=server,
        existing=existing,
        keeps_names=name.casefold() == source_database.casefold(),
    )
    problems += [
        (sentence, "free space there, or say where files go with --move LOGICAL=PATH")
        for sentence in missing_space(files, server.drives, existing)
    ]
    if not server.drives:
        notes.append("free space was not checked: the server did not tell it")
    _check_express(files, server, problems)
    if problems:
        raise TargetNotUsable(
            f"{where} cannot be restored to: " + "; ".join(what for what, _ in problems),
            hint="; ".join(dict.fromkeys(remedy for _, remedy in problems)),
        )
    # Also where no session was seen: the login may not see them, and one may come meanwhile.
    ends = target.disconnects and existing is not None and existing.state == "ONLINE"
    return CheckedTarget(files, gives_up, takes, ends, tuple(notes))


def _check_version(
    facts: Sequence[Mapping[str, Any]],
    headers: Sequence[BackupHeader],
    server: ServerFacts,
    problems: list[tuple[str, str]],
) -> None:
    majors = [number(each["header"], "SoftwareVersionMajor") or 0 for each in facts]
    newest = max(majors, default=0)
    if newest > server.major > 0:
        problems.append(
            (
                f"the backup is from SQL Server {_VERSIONS.get(newest, newest)} and the server is "
                f"{_VERSIONS.get(server.major, server.version)}, which is older",
                "restore on an instance of the same or a newer version: --instance NAME",
            )
        )
    damaged = [header for header in headers if header.is_damaged]
    if damaged:
        problems.append(
            (
                f"the backup set {damaged[0].set_guid} was taken of damaged pages",
                "plan around it: an older full and the logs behind it",
            )
        )


def _check_keys(
    facts: Sequence[Mapping[str, Any]],
    server: ServerFacts,
    problems: list[tuple[str, str]],
    notes: list[str],
) -> None:
    """Certificates that backups are encrypted with, and those of encrypted databases."""
    needed: dict[str, str] = {}
    for each in facts:
        encryptor = text(each["header"], "EncryptorThumbprint")
        if encryptor:
            needed[encryptor.lower()] = "the backup is encrypted"
        for row in each.get("file_list") or ():
            thumbprint = text(row, "TDEThumbprint")
            if thumbprint:
                needed[thumbprint.lower()] = "the database is encrypted (TDE)"
    if server.certificates is None:
        if needed:
            notes.append("whether the server has the certificates needed could not be checked")
        return
    for thumbprint, why in sorted(needed.items()):
        if thumbprint not in server.certificates:
            problems.append(
                (
                    f"{why} with the certificate {thumbprint}, which the server does not have",
                    "restore that certificate and its private key there first: "
                    "CREATE CERTIFICATE … FROM FILE = … WITH PRIVATE KEY (…)",
                )
            )


def _check_existing(
    header: BackupHeader,
    target: DatabaseTarget,
    existing: ExistingDatabase,
    where: str,
    problems: list[tuple[str, str]],
) -> tuple[bool, bool]:
    """Whether log is given up, and whether it is to be taken first."""
    name = identifier(existing.name)
    if existing.is_snapshot:
        problems.append((f"{where} is a database snapshot", "choose another name with --as"))
    if existing.is_in_group:
        problems.append(
            (
                f"{where} belongs to an availability group",
                f"ALTER AVAILABILITY GROUP … REMOVE DATABASE {name} first, or choose another name "
                "with --as",
            )
        )
    if target.resumes:
        if existing.state != "RESTORING":
            problems.append(
                (
                    f"{where} is {existing.state}: no restore of it was interrupted",
                    "leave out --resume",
                )
            )
        return False, False
    if not target.replaces:
        if existing.state == "RESTORING":
            problems.append(
                (
                    f"{where} exists and is in the middle of a restore (RESTORING)",
                    f"go on with it: --resume; begin again: --overwrite; or DROP DATABASE {name}",
                )
            )
        else:
            problems.append(
                (
                    f"{where} exists already",
                    "restore beside it with --as NAME, or replace it with --overwrite",
                )
            )
        return False, False
    if existing.family is not None and existing.family != header.family:
        problems.append(
            (
                f"{where} is another database than the one that was backed up (its family is "
                f"{existing.family}, the backup's {header.family})",
                f"restore beside it with --as NAME; or, if it really is to go: DROP DATABASE "
                f"{name}, then restore with --as {existing.name}",
            )
        )
    if existing.sessions and not target.disconnects:
        told = ", ".join(str(each) for each in existing.sessions[:5])
        more = len(existing.sessions) - 5
        problems.append(
            (
                f"{where} is in use: {told}" + (f" and {more} more" if more > 0 else ""),
                "end these sessions, or let sqlbak do it with --disconnect",
            )
        )
    if not _has_tail(existing):
        return False, False
    if target.tail is None:
        problems.append(
            (
                f"{where} holds log that is in no backup: replacing it would lose everything since "
                "its last log backup",
                "take it into the vault first with --tail backup, or give it up with "
                "--tail discard",
            )
        )
        return False, False
    gives_up = target.tail is TailChoice.DISCARD
    if existing.state != "ONLINE" and (not gives_up or existing.family is None):
        what = "which database it is is not told" if gives_up else "its log cannot be backed up"
        problems.append(
            (
                f"{where} is {existing.state}: {what}",
                f"ALTER DATABASE {name} SET ONLINE if it was taken offline; if it is broken, save "
                "the end of its log (docs/sql-server.md, “The server is lost, its log disk is "
                f"not”), then DROP DATABASE {name} and restore with --as {existing.name}",
            )
        )
    elif gives_up and existing.family is None:
        # REPLACE would also pass over the server's own check of the family.
        problems.append(
            (
                f"{where}: the server does not tell which database it is",
                "GRANT VIEW ANY DATABASE TO the login, or drop the database yourself",
            )
        )
    return gives_up, not gives_up


def _has_tail(existing: ExistingDatabase) -> bool:
    """Whether the server itself would ask for a tail-log backup (3159): not for a database whose
    log follows no backup at all."""
    if existing.state == "RESTORING" or existing.is_standby:
        return False
    has_chain = existing.family is None or existing.last_log_backup is not None
    return existing.recovery_model in ("FULL", "BULK_LOGGED") and has_chain


def _check_express(files: FilePlan, server: ServerFacts, problems: list[tuple[str, str]]) -> None:
    if server.engine_edition != _EXPRESS:
        return
    limit = 50 * _GIB if server.major >= 17 else 10 * _GIB
    size = sum(file.size_bytes for file in files.files if file.type == "D")
    if size > limit:
        problems.append(
            (
                f"its data files take {size} bytes, and {server.edition} opens databases of up to "
                f"{limit} only",
                "restore on another edition: --instance NAME",
            )
        )
