"""Unlogged relations that a recovery left as a page of zeros are found, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from sqlbak.engines.postgres.unloggedfiles import has_emptied_relations

PAGE = b"\x17" + bytes(8191)
ZEROS = bytes(8192)


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    for place in (tmp_path / "data" / "base" / "5", tmp_path / "space" / "PG_18_1" / "5"):
        place.mkdir(parents=True)
    (tmp_path / "data" / "pg_tblspc").mkdir()
    (tmp_path / "data" / "pg_tblspc" / "16400").symlink_to(tmp_path / "space")
    return tmp_path / "data"


@pytest.mark.parametrize("place", ["base/5", "pg_tblspc/16400/PG_18_1/5"])
def test_a_page_of_zeros_in_place_of_the_first_page_is_found(cluster: Path, place: str) -> None:
    (cluster / place / "16500_init").write_bytes(PAGE)
    (cluster / place / "16500").write_bytes(ZEROS)
    assert has_emptied_relations(cluster)


@pytest.mark.parametrize(
    ("init", "main"),
    [(PAGE, PAGE), (b"", b""), (b"", ZEROS), (PAGE, b""), (PAGE, ZEROS + PAGE), (PAGE, None)],
)
def test_what_is_as_the_server_makes_it_is_left_alone(
    cluster: Path, init: bytes, main: bytes | None
) -> None:
    folder = cluster / "base" / "5"
    (folder / "16500_init").write_bytes(init)
    (folder / "16501").write_bytes(ZEROS)  # a permanent relation's
    if main is not None:
        (folder / "16500").write_bytes(main)
    assert not has_emptied_relations(cluster)
