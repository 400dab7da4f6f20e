"""One simulator a test module, and connections to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pymssql
import pytest

from .simulator import Simulator

MOVES = (
    "MOVE N'{source}' TO N'/var/opt/mssql/data/{name}.mdf', "
    "MOVE N'{source}_log' TO N'/var/opt/mssql/data/{name}.ldf'"
)


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """The real folder behind /backup."""
    return tmp_path


@pytest.fixture
def simulator(media: Path) -> Iterator[Simulator]:
    with Simulator({"/backup": media}) as running:
        yield running


@pytest.fixture
def connect(simulator: Simulator) -> Iterator[Callable[..., Any]]:
    """Opens pymssql connections and closes them at the end."""
    opened = []

    def open_connection(user: str = "sa", password: str | None = None, **parts: Any) -> Any:
        connection = pymssql.connect(
            server=simulator.host,
            port=simulator.port,
            user=user,
            password=simulator.sa_password if password is None else password,
            autocommit=True,
            **parts,
        )
        opened.append(connection)
        return connection

    yield open_connection
    for connection in opened:
        connection.close()
