"""The record that a restore leaves for other programs."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sqlbak.engines.port import RestoreOutcome
from sqlbak.model import EngineName, Item, LogPosition
from sqlbak.restore.executor import RestoredItem
from sqlbak.restore.planner import LATEST, plan
from sqlbak.restore.record import leave_record, restored_document
from tests.restore.test_planner import WEEK

_NOW = datetime(2026, 5, 1, 10, tzinfo=UTC)


def _restored(directory: Path) -> RestoredItem:
    outcome = RestoreOutcome(
        directory, True, LogPosition("1", 350), _NOW, "host=/x", ("do this",), {"port": 7}
    )
    item = Item("shop-1", EngineName.POSTGRES, "shop", None, "7")
    return RestoredItem(item, plan(WEEK, LATEST), outcome, "file:///vault")


def test_the_record_lies_beside_the_directory_and_says_what_the_answer_says(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    for asked in ("latest", "0/3000148"):  # the second takes the first one's place
        left = leave_record(_restored(directory), asked=asked, now=_NOW)
    assert left.path == tmp_path / "data.sqlbak.json"
    assert list(directory.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "data.sqlbak.json"]
    found = json.loads(left.path.read_text())
    answer = restored_document(_restored(directory))
    assert {name: found[name] for name in answer} == answer
    assert answer["reached"] == {"lineage": "1", "lsn": 350}
    assert (found["asked"], found["source"]) == ("0/3000148", "file:///vault")
    assert (found["kind"], found["format"], found["item_id"]) == ("sqlbak restore", 1, "shop-1")


def test_where_it_cannot_be_written_the_answer_says_so(tmp_path: Path) -> None:
    (tmp_path / "data.sqlbak.json").mkdir()
    (tmp_path / "data.sqlbak.json" / "something").touch()
    left = leave_record(_restored(tmp_path / "data"), asked="latest", now=_NOW)
    assert left.path is None
    assert "data.sqlbak.json" in left.problem
    assert [path.name for path in tmp_path.iterdir()] == ["data.sqlbak.json"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_above_that_is_read_only_stops_no_restore(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert leave_record(_restored(tmp_path / "data"), asked="latest", now=_NOW).path is None
