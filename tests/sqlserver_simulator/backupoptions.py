"""Options of BACKUP: their values, ranges and conflicts ([D] backup-transact-sql, Arguments, and
the pages on compression and on S3-compatible storage)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import syntax as s
from .devices import Place
from .errors import SqlError, not_modelled
from .values import to_datetime

if TYPE_CHECKING:
    from .session import Session

MIB = 1024 * 1024
_CONFLICTS = (
    ("FORMAT", "NOFORMAT"), ("INIT", "NOINIT"), ("SKIP", "NOSKIP"), ("CHECKSUM", "NO_CHECKSUM"),
    ("COMPRESSION", "NO_COMPRESSION"), ("STOP_ON_ERROR", "CONTINUE_AFTER_ERROR"),
    ("FORMAT", "NOSKIP"), ("RETAINDAYS", "EXPIREDATE"), ("NORECOVERY", "STANDBY"),
)  # fmt: skip
_LOG_ONLY = ("NORECOVERY", "STANDBY", "NO_TRUNCATE")


def resolved(session: Session, options: dict[str, Any]) -> dict[str, Any]:
    """Options with variables replaced by their values."""
    return {
        name: session.evaluate(value) if isinstance(value, s.Expression) else value
        for name, value in options.items()
    }


def check_options(
    session: Session, statement: s.Backup, options: dict[str, Any], places: list[Place]
) -> None:
    """SqlError for whatever the server would refuse; fills in the server's defaults."""
    instance = session.instance
    if statement.partial:
        raise not_modelled("file and filegroup backups")
    if statement.mirrors:
        raise not_modelled("MIRROR TO")
    for name in ("METADATA_ONLY", "SNAPSHOT", "FILE_SNAPSHOT"):
        if name in options:
            raise not_modelled(f"BACKUP WITH {name}")
    if statement.kind == "DATABASE":
        for name in _LOG_ONLY:
            if name in options:
                raise SqlError(
                    3032, f"One or more of the options ({name.lower()}) are not supported for this "
                    "statement. Review the documentation for supported options."
                )  # fmt: skip
    elif "DIFFERENTIAL" in options:
        raise SqlError(
            3032, "One or more of the options (differential) are not supported for this statement. "
            "Review the documentation for supported options."
        )  # fmt: skip
    for one, two in _CONFLICTS:
        if one in options and two in options:
            raise SqlError(
                3031, f"Option '{one.lower()}' conflicts with option(s) '{two.lower()}'. "
                "Remove the conflicting option and reissue the statement."
            )  # fmt: skip
    if any(not place.name for place in places):
        raise SqlError(
            3044,
            "Invalid zero-length device name. Reissue the BACKUP statement with a valid device "
            "name.",
        )
    if len({place.kind for place in places}) > 1:
        raise SqlError(
            3011,
            "All backup devices must be of the same general class (for example, DISK and TAPE).",
        )
    if len(places) > 64:
        raise SqlError(
            3205,
            "Too many backup devices specified for backup or restore; only 64 are allowed.",
        )
    for name, most in (("NAME", 128), ("DESCRIPTION", 255), ("MEDIANAME", 128)):
        if len(str(options.get(name) or "")) > most:
            raise SqlError(3217, f"Invalid value specified for {name} parameter.")
    _check_sizes(options, places)
    _check_compression(session, options)
    if "EXPIREDATE" in options and isinstance(options["EXPIREDATE"], str):
        options["EXPIREDATE"] = to_datetime(options["EXPIREDATE"])
    encryption = options.get("ENCRYPTION")
    if encryption and encryption.get("CERTIFICATE") not in instance.certificates:
        raise SqlError(
            15151,
            f"Cannot find the certificate '{encryption.get('CERTIFICATE')}', because it does not "
            "exist or you do not have permission.",
        )
    if instance.configuration["backup checksum default"] and "NO_CHECKSUM" not in options:
        options.setdefault("CHECKSUM", True)


def _check_sizes(options: dict[str, Any], places: list[Place]) -> None:
    block = options.get("BLOCKSIZE")
    if block is not None:
        if int(block) & (int(block) - 1):
            raise SqlError(
                3253, "The block size parameter must supply a value that is a power of 2."
            )
        if not 512 <= int(block) <= 65536:
            raise SqlError(
                3250, f"The value '{block}' is not within range for the BLOCKSIZE parameter."
            )
    size = options.get("MAXTRANSFERSIZE")
    s3 = any(place.name.lower().startswith("s3://") for place in places)
    if size is not None:
        size = int(size)
        if s3:
            if not 5 * MIB <= size <= 20 * MIB:
                raise SqlError(
                    3250,
                    f"The value '{size}' is not within range for the MAXTRANSFERSIZE parameter.",
                )
            if "COMPRESSION" not in options:
                raise SqlError(3217, "Invalid value specified for MAXTRANSFERSIZE parameter.")
        elif size % 65536 or not 65536 <= size <= 4 * MIB:
            raise SqlError(
                3250, f"The value '{size}' is not within range for the MAXTRANSFERSIZE parameter."
            )
    if s3 and "INIT" in options and "FORMAT" not in options:
        raise SqlError(
            3032, "One or more of the options (init) are not supported for this statement. Review "
            "the documentation for supported options."
        )  # fmt: skip
    stats = options.get("STATS")
    if stats is not None and not 1 <= int(stats) <= 100:
        raise SqlError(3250, f"The value '{stats}' is not within range for the STATS parameter.")


def _check_compression(session: Session, options: dict[str, Any]) -> None:
    instance = session.instance
    if "COMPRESSION" not in options:
        default = instance.configuration["backup compression default"]
        if default and "NO_COMPRESSION" not in options:
            options["COMPRESSION"] = {}
        return
    if "Express" in instance.edition or "Web" in instance.edition:
        raise SqlError(1844, f"BACKUP WITH COMPRESSION is not supported on {instance.edition}.")
    chosen = options["COMPRESSION"]
    if not chosen:
        return
    if not instance.version.has_compression_algorithm:
        raise SqlError(102, "Incorrect syntax near '('.", 15, ends_batch=True)
    algorithm = chosen.get("ALGORITHM")
    known = {"MS_XPRESS", "QAT_DEFLATE"} | ({"ZSTD"} if instance.version.has_zstd else set())
    if algorithm not in known:
        raise SqlError(
            155, f"'{algorithm}' is not a recognized BACKUP option.", 15, ends_batch=True
        )
    if "LEVEL" in chosen and not instance.version.has_zstd:
        raise SqlError(155, "'LEVEL' is not a recognized BACKUP option.", 15, ends_batch=True)
