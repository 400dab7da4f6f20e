"""SQL Server backups that go through the folder into an encrypted vault."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from sqlbak.errors import VaultKeyMissing
from tests.sqlserver.conftest import started
from tests.sqlserver.site import Site
from tests.sqlserver.test_adopting import adopted, elsewhere, others_took
from tests.sqlserver_simulator import Simulator

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


@pytest.fixture(scope="module")
def sales(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site with an encrypted history of the database Sales, for tests that leave it alone."""
    simulators: list[Simulator] = []
    site = started(tmp_path_factory.mktemp("encrypted") / "site", simulators)
    site.encrypt()
    site.write_history("Sales")
    yield site
    for simulator in simulators:
        simulator.stop()


def test_every_commit_is_restored_to_from_full_differential_and_logs(sales: Site) -> None:
    last = sales.commits["Sales"][-1][0]
    for at, _ in sales.commits["Sales"][1:]:
        instant = min(at + timedelta(seconds=1), last)
        sales.restore("Sales", instant)
        assert sales.rows("Copy") == sales.rows_at("Sales", instant)
        sales.drop("Copy")


def data_objects(site: Site) -> list[Path]:
    return [path for path in (site.folder / "vault").glob("items/*/data/*/*") if path.is_file()]


def assert_unreadable(site: Site) -> None:
    """Nothing of the payload decodes, nor does any header of a backup stand there as it is."""
    found = data_objects(site)
    assert found
    for path in found:
        content = path.read_bytes()
        with pytest.raises(zstd.ZstdError):
            zstd.decompress(content)
        assert not zstd_magic(content)


def zstd_magic(content: bytes) -> bool:
    return content.startswith(b"\x28\xb5\x2f\xfd")


def test_what_the_server_wrote_cannot_be_read_in_the_vault_and_comes_out_as_files(
    sales: Site,
) -> None:
    assert_unreadable(sales)
    folder = sales.delivery / "files"
    code = sales.program(
        "restore", "erp/Sales", "--to", "latest", "--as", "Copy", "--files", str(folder), "--json"
    )
    assert code == 0
    names = sorted(path.name for path in folder.iterdir())
    shutil.rmtree(folder)
    assert names == [
        "001-full.bak",
        "002-differential.bak",
        "003-log.trn",
        "004-log.trn",
        "restore.sql",
    ]
    assert sales.leftovers() == []


def test_no_file_is_left_and_nothing_written_when_the_key_is_gone(
    make_site: Callable[..., Site],
) -> None:
    site = make_site()
    site.encrypt()
    site.write_history("Sales")
    site.encryption = ""
    site.write_policy()
    before = data_objects(site)
    for kind in ("full", "differential", "log"):
        with pytest.raises(VaultKeyMissing):
            site.backup("Sales", kind)
    with pytest.raises(VaultKeyMissing):
        site.restore("Sales", "latest")
    assert site.state("Copy") is None
    assert site.leftovers() == []
    assert data_objects(site) == before


def test_backups_of_other_tools_are_encrypted_when_they_are_adopted(
    site: Site, tmp_path: Path
) -> None:
    site.encrypt()
    others_took(site)
    last = site.commits["Sales"][-1][0]
    folder = elsewhere(site, tmp_path / "theirs")
    adopted(site, folder)
    assert_unreadable(site)
    site.restore("Sales", last)
    assert site.rows("Copy") == site.rows_at("Sales", last)


def test_a_machine_without_the_key_lists_plans_and_watches(
    make_site: Callable[..., Site], capsys: pytest.CaptureFixture[str]
) -> None:
    site = make_site()
    site.encrypt()
    site.write_history("Sales")
    looks = [
        ("list",),
        ("windows",),
        ("plan", "erp/Sales", "--to", "latest"),
        ("jobs",),
        ("status",),
    ]

    def shown() -> list[object]:
        capsys.readouterr()
        codes = [site.program(*words, "--json") for words in looks]
        assert codes == [0, 0, 0, 0, 4]  # of status: the system databases have no backup
        return [line for line in capsys.readouterr().out.splitlines() if '"to"' in line]

    with_key = shown()
    site.encryption = ""
    site.write_policy()
    assert shown() == with_key
