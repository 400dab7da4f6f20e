"""On a server that tells names apart by case, two databases may differ in nothing else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

from sqlbak.engines.port import TailChoice
from sqlbak.jobs.adopt import adopt
from sqlbak.jobs.adoptable_files import FolderPlace
from tests.sqlserver.site import INSTANCE, SERVER_FOLDER, Site, said
from tests.sqlserver_simulator import expressions, query, values

TWINS = ("Sales", "sales", "SALES")


def told_apart(value: Any) -> Any:
    """How such a server compares."""
    return value.rstrip(" ") if isinstance(value, str) else value


@pytest.fixture
def twins(make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch) -> Site:
    for module in (values, expressions, query):
        monkeypatch.setattr(module, "fold", told_apart)
    site = make_site(collation="Latin1_General_CS_AS")
    for name in TWINS:
        site.simulator.create_database(name, rows=[f"of {name}"])
        site.advance(minutes=1)
        site.backup(name, "full")
    for name in TWINS:
        site.advance(minutes=1)
        site.insert(name, f"more of {name}")
        site.advance(minutes=1)
        site.backup(name, "log")
    return site


def held(name: str) -> list[str]:
    return [f"of {name}", f"more of {name}"]


def test_twins_are_items_of_their_own_the_whole_way(
    twins: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    for name in TWINS:
        item = f"{INSTANCE}/{name}"
        assert twins.program("list", item, "--json") == 0
        points = said(capsys)[0]["points"]
        assert [(point["item"], point["type"]) for point in points] == [
            (item, "full"),
            (item, "log"),
        ]
        log = points[-1]["id"]
        assert twins.program("plan", item, "--to", log, "--json") == 0
        assert len(said(capsys)[0]["steps"]) == 2
        out = tmp_path / f"files-{name}"
        assert twins.program("restore", item, "--to", log, "--files", str(out)) == 0
        assert f"RESTORE DATABASE [{name}]" in (out / "restore.sql").read_text("utf-8-sig")
        capsys.readouterr()
        twins.restore(name, log, f"{name} copy")
    for name in TWINS:
        assert twins.rows(f"{name} copy") == held(name)


def test_only_the_twin_that_is_meant_is_adopted(twins: Site, tmp_path: Path) -> None:
    for name in TWINS:
        twins.simulator.execute(
            f"BACKUP DATABASE [{name}] TO DISK = N'{SERVER_FOLDER}/{name} of others.bak' "
            "WITH CHECKSUM, FORMAT, COPY_ONLY"
        )
    with twins.fleet() as fleet:
        found = adopt(fleet, INSTANCE, FolderPlace(twins.delivery), zone=UTC, database="sales")
    assert [each.database for each in found.sets] == ["sales"]


def test_only_the_twin_that_is_meant_is_replaced(twins: Site) -> None:
    with twins.fleet() as fleet:
        log = fleet.points(f"{INSTANCE}/sales")[-1].id
    for name in TWINS:
        twins.insert(name, "tail")
    twins.restore("sales", log, "sales", replaces=True, tail=TailChoice.DISCARD)
    assert {name: twins.rows(name) for name in TWINS} == {
        "Sales": [*held("Sales"), "tail"],
        "sales": held("sales"),
        "SALES": [*held("SALES"), "tail"],
    }
