"""Grammar of BACKUP and RESTORE ([D] backup-transact-sql and restore-statements-transact-sql:
the syntax boxes; BACKUP_OPTIONS and RESTORE_OPTIONS: the page on S3-compatible storage)."""

from __future__ import annotations

from typing import Any

from . import syntax as s
from .errors import SqlError, not_modelled
from .queryparser import QueryParser
from .sqltypes import SYSNAME

_FLAGS = frozenset(
    [
        "DIFFERENTIAL",
        "COPY_ONLY",
        "NO_COMPRESSION",
        "NOINIT",
        "INIT",
        "NOSKIP",
        "SKIP",
        "NOFORMAT",
        "FORMAT",
        "NO_CHECKSUM",
        "CHECKSUM",
        "STOP_ON_ERROR",
        "CONTINUE_AFTER_ERROR",
        "RESTART",
        "REWIND",
        "NOREWIND",
        "LOAD",
        "NOUNLOAD",
        "UNLOAD",
        "NORECOVERY",
        "NO_TRUNCATE",
        "FILE_SNAPSHOT",
        "METADATA_ONLY",
        "SNAPSHOT",
    ]
)
_VALUES = frozenset(
    [
        "DESCRIPTION",
        "NAME",
        "CREDENTIAL",
        "EXPIREDATE",
        "RETAINDAYS",
        "MEDIADESCRIPTION",
        "MEDIANAME",
        "BLOCKSIZE",
        "BUFFERCOUNT",
        "MAXTRANSFERSIZE",
        "BACKUP_OPTIONS",
        "STANDBY",
    ]
)
_RESTORE_FLAGS = frozenset(
    [
        "RECOVERY",
        "NORECOVERY",
        "REPLACE",
        "RESTART",
        "RESTRICTED_USER",
        "CHECKSUM",
        "NO_CHECKSUM",
        "STOP_ON_ERROR",
        "CONTINUE_AFTER_ERROR",
        "KEEP_REPLICATION",
        "KEEP_CDC",
        "ENABLE_BROKER",
        "ERROR_BROKER_CONVERSATIONS",
        "NEW_BROKER",
        "REWIND",
        "NOREWIND",
        "UNLOAD",
        "NOUNLOAD",
        "LOADHISTORY",
        "PARTIAL",
        "METADATA_ONLY",
    ]
)
_RESTORE_VALUES = frozenset(
    [
        "STANDBY",
        "CREDENTIAL",
        "FILE",
        "MEDIANAME",
        "MEDIAPASSWORD",
        "PASSWORD",
        "BLOCKSIZE",
        "BUFFERCOUNT",
        "MAXTRANSFERSIZE",
        "RESTORE_OPTIONS",
        "STOPAT",
        "DBNAME",
    ]
)
_HEADER_KINDS = frozenset({"HEADERONLY", "FILELISTONLY", "LABELONLY", "VERIFYONLY"})


class BackupGrammar(QueryParser):
    """BACKUP ... and RESTORE ..."""

    def backup(self) -> s.Backup:
        self.expect("BACKUP")
        kind = self.advance().upper
        if kind in {"SERVER", "GROUP", "CERTIFICATE", "MASTER", "SERVICE"}:
            raise not_modelled(f"BACKUP {kind}")
        if kind not in {"DATABASE", "LOG"}:
            raise self.wrong(self.found[self.at - 1])
        database = self._name_or_variable()
        partial = False
        while self.token.upper in {"FILE", "FILEGROUP", "READ_WRITE_FILEGROUPS"}:
            partial = True
            if self.advance().upper != "READ_WRITE_FILEGROUPS":
                self.expect("=")
                self.expression()
            self.take(",")
        self.expect("TO")
        devices = self._devices()
        mirrors = []
        while self.take("MIRROR", "TO"):
            mirrors.append(self._devices())
        options: dict[str, Any] = {}
        if self.take("WITH"):
            while True:
                self._backup_option(options)
                if not self.take(","):
                    break
        return s.Backup(kind, database, devices, tuple(mirrors), options, partial)

    def _name_or_variable(self) -> s.Expression:
        if self.token.kind == "variable":
            return s.Variable(self.advance().text)
        return s.Literal(self.name(), SYSNAME)

    def _devices(self) -> tuple[s.Device, ...]:
        found = []
        while True:
            if self.token.upper in {"DISK", "TAPE", "URL"} and self.peek().text == "=":
                kind = self.advance().upper
                self.advance()
                if self.token.kind not in {"string", "variable"}:
                    raise self.wrong()
                found.append(s.Device(kind, self._primary()))
            else:
                found.append(s.Device("LOGICAL", self._name_or_variable()))
            if not self.take(","):
                return tuple(found)

    def _backup_option(self, options: dict[str, Any]) -> None:
        token = self.token
        word = token.upper
        if word in _FLAGS:
            self.advance()
            options[word] = True
        elif word == "COMPRESSION":
            self.advance()
            options[word] = self._compression()
        elif word == "STATS":
            self.advance()
            options[word] = self._option_value() if self.take("=") else 10
        elif word == "ENCRYPTION":
            self.advance()
            options[word] = self._encryption()
        elif word in _VALUES:
            self.advance()
            self.expect("=")
            options[word] = self._option_value()
        elif token.kind in {"word", "name"}:
            raise SqlError(155, f"'{token.text}' is not a recognized BACKUP option.", 15)
        else:
            raise self.wrong()

    def _option_value(self) -> s.Expression | int | str:
        """A literal or a variable; ``$(x)`` and expressions are not allowed here."""
        if self.token.kind == "variable":
            return s.Variable(self.advance().text)
        if self.token.kind == "string":
            return self.advance().text
        if self.token.kind == "number":
            return int(self.advance().text)
        raise self.wrong()

    def _compression(self) -> dict[str, str]:
        found: dict[str, str] = {}
        if self.take("("):
            while not self.take(")"):
                key = self.name().upper()
                if key not in {"ALGORITHM", "LEVEL"}:
                    raise self.wrong(self.found[self.at - 1])
                self.expect("=")
                found[key] = self.name().upper()
                self.take(",")
        return found

    def _encryption(self) -> dict[str, str]:
        found: dict[str, str] = {}
        self.expect("(")
        while not self.take(")"):
            if self.take("ALGORITHM"):
                self.expect("=")
                found["ALGORITHM"] = self.name().upper()
            elif self.take("SERVER", "CERTIFICATE"):
                self.expect("=")
                found["CERTIFICATE"] = self.name()
            elif self.take("SERVER", "ASYMMETRIC"):
                self.expect("KEY")
                self.expect("=")
                found["CERTIFICATE"] = self.name()
            else:
                raise self.wrong()
            self.take(",")
        return found

    def restore(self) -> s.Restore:
        self.expect("RESTORE")
        kind = self.advance().upper
        database: s.Expression | None = None
        if kind in {"DATABASE", "LOG"}:
            database = self._name_or_variable()
            if self.token.upper in {"FILE", "FILEGROUP", "READ_WRITE_FILEGROUPS", "PAGE"}:
                raise not_modelled(f"RESTORE {kind} of a {self.token.upper}")
        elif kind not in _HEADER_KINDS:
            if kind in {"SERVICE", "MASTER", "REWINDONLY"}:
                raise not_modelled(f"RESTORE {kind}")
            raise self.wrong(self.found[self.at - 1])
        devices: tuple[s.Device, ...] = ()
        if self.take("FROM"):
            if self.take("DATABASE_SNAPSHOT"):
                self.expect("=")
                snapshot = self.string() if self.token.kind == "string" else self.name()
                return s.Restore(kind, database, (), {"DATABASE_SNAPSHOT": snapshot})
            devices = self._devices()
        elif kind in _HEADER_KINDS or kind == "LOG":
            raise self.wrong()
        options: dict[str, Any] = {}
        moves: list[tuple[s.Expression, s.Expression]] = []
        if self.take("WITH"):
            while True:
                self._restore_option(options, moves)
                if not self.take(","):
                    break
        return s.Restore(kind, database, devices, options, tuple(moves))

    def _restore_option(
        self, options: dict[str, Any], moves: list[tuple[s.Expression, s.Expression]]
    ) -> None:
        token = self.token
        word = token.upper
        if word == "MOVE":
            self.advance()
            logical = self._primary()
            self.expect("TO")
            moves.append((logical, self._primary()))
        elif word in _RESTORE_FLAGS:
            self.advance()
            options[word] = True
        elif word == "STATS":
            self.advance()
            options[word] = self._option_value() if self.take("=") else 10
        elif word in {"STOPATMARK", "STOPBEFOREMARK"}:
            self.advance()
            self.expect("=")
            mark = self._option_value()
            after = self._option_value() if self.take("AFTER") else None
            options[word] = (mark, after)
        elif word in _RESTORE_VALUES:
            self.advance()
            self.expect("=")
            options[word] = self._option_value()
        elif token.kind in {"word", "name"}:
            raise SqlError(155, f"'{token.text}' is not a recognized RESTORE option.", 15)
        else:
            raise self.wrong()
