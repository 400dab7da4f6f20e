"""``sqlbak demo`` as a newcomer runs it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from sqlbak.engines.postgres.programs import find_programs
from sqlbak.errors import ServerProgramMissing
from tests.acceptance.site import COMMAND
from tests.engines.postgres.clusters import scratch_directory

pytestmark = pytest.mark.postgres


def has_demo_server() -> bool:
    try:
        find_programs(18)
    except ServerProgramMissing:
        return False
    return True


@pytest.mark.skipif(not has_demo_server(), reason="needs the demo extra")
def test_the_demo_brings_back_every_transfer_and_the_books_balance() -> None:
    with scratch_directory() as home:
        home.chmod(0o755)
        place = home / "demo"
        first = subprocess.run(
            [*COMMAND, "demo", "--directory", place, "--json"], capture_output=True, text=True
        )
        assert first.returncode == 0, first.stderr
        document = json.loads(first.stdout)
        assert document["books_balance"]
        assert document["transfers_restored"] == document["transfers_expected"] > 0
        assert (place / "policies" / "bank.yaml").exists()
        assert "DROP TABLE history" in first.stderr
        # What it invites to try next works.
        tried = subprocess.run(
            [*COMMAND, "--config", place / "policies", "windows", "--json"],
            capture_output=True,
            text=True,
        )
        assert len(json.loads(tried.stdout)["windows"]) == 1


def test_the_demo_leaves_a_folder_alone_that_it_did_not_make(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    done = subprocess.run(
        [*COMMAND, "demo", "--directory", tmp_path], capture_output=True, text=True
    )
    assert done.returncode == 3
    assert (tmp_path / "thesis.tex").read_text() == "precious"
