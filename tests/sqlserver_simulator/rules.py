"""Short words for tests of the rules, run without the wire."""

from __future__ import annotations

from typing import Any

import pytest

from .media import BackupSet
from .simulator import Simulator, SimulatorError, quoted


class Rules:
    """Backups and restores of one simulator, each set in a file of its own."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self.count = 0

    def _take(self, kind: str, database: str, options: str) -> str:
        self.count += 1
        path = f"/backup/{self.count}.bak"
        self.simulator.execute(
            f"BACKUP {kind} {quoted(database)} TO DISK = N'{path}' WITH FORMAT{options}"
        )
        return path

    def full(self, database: str = "shop", options: str = "") -> str:
        return self._take("DATABASE", database, options)

    def differential(self, database: str = "shop", options: str = "") -> str:
        return self._take("DATABASE", database, ", DIFFERENTIAL" + options)

    def log(self, database: str = "shop", options: str = "") -> str:
        return self._take("LOG", database, options)

    def restore(
        self, path: str, name: str = "copy", options: str = "NORECOVERY", source: str = "shop"
    ) -> None:
        self.simulator.execute(
            f"RESTORE DATABASE {quoted(name)} FROM DISK = N'{path}' WITH {options}, "
            f"MOVE N'{source}' TO N'/var/opt/mssql/data/{name}.mdf', "
            f"MOVE N'{source}_log' TO N'/var/opt/mssql/data/{name}.ldf'"
        )

    def apply(self, path: str, name: str = "copy", options: str = "NORECOVERY") -> None:
        self.simulator.execute(f"RESTORE LOG {quoted(name)} FROM DISK = N'{path}' WITH {options}")

    def recover(self, name: str = "copy") -> list[str]:
        self.simulator.execute(f"RESTORE DATABASE {quoted(name)} WITH RECOVERY")
        return self.simulator.rows(name)

    def header(self, path: str) -> BackupSet:
        """The facts of the newest set in msdb with this device."""
        history = self.simulator.instance.history
        for recorded in reversed(history.sets):
            _, families = history.media[self._media(recorded.media_set)]
            if any(each[2] == path for each in families):
                return recorded.facts
        raise AssertionError(f"no set was recorded for {path}")

    def _media(self, number: int) -> Any:
        media = self.simulator.instance.history.media
        return next(uuid for uuid, (each, _) in media.items() if each == number)

    def refused(self, sql: str, *numbers: int, **parts: Any) -> list[str]:
        """The batch fails with exactly these messages; their texts."""
        with pytest.raises(SimulatorError) as error:
            self.simulator.execute(sql, **parts)
        assert error.value.numbers == list(numbers), error.value.texts
        return error.value.texts
