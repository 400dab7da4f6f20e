"""What policy files say of SQL Server instances: no setting promises what is not done."""

from __future__ import annotations

from pathlib import Path

import pytest

from sqlbak.errors import FeatureUnsupported
from sqlbak.fleet import Fleet
from sqlbak.policy.schema import SqlServerInstance
from tests.policy.documents import WHOLE, load, problems

DISK = "delivery: {disk: {server_path: /var/opt/mssql/backup, local_path: /mnt/erp-backup}}"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("tls: verified", "write ca_file: PATH"),
        ("tls: required\n    ca_file: /ca.pem", "write tls: verified"),
        ("tls: clear\n    ca_file: /ca.pem", "write tls: verified"),
        ("tls: maybe", "tls"),
        ("compression: gzip", "compression"),
        ("stripes: 65", "stripes"),
    ],
)
def test_contradictions_are_named(tmp_path: Path, settings: str, expected: str) -> None:
    found = problems(tmp_path, WHOLE.replace(DISK, f"{DISK}\n    {settings}"))
    assert len(found) == 1
    assert expected in found[0]


@pytest.mark.parametrize(
    ("settings", "wire"),
    [("", "required"), ("ca_file: /ca.pem", "verified"), ("tls: clear", "clear")],
)
def test_the_wire_is_never_less_than_was_written(tmp_path: Path, settings: str, wire: str) -> None:
    loaded = load(tmp_path, WHOLE.replace(DISK, f"{DISK}\n    {settings}"))
    instance = loaded.configuration.instances["erp"]
    assert isinstance(instance, SqlServerInstance)
    assert instance.wire == wire


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (DISK, "delivery: {url: s3://acme-backups/staging}", "delivery.url"),
        ("    log: 15m\n", "    log: 15m\n    log_shipping: continuous\n", "instances.erp.policy"),
    ],
)
def test_what_is_not_done_is_refused_and_not_pretended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, line: str
) -> None:
    monkeypatch.setenv("ERP_PASSWORD", "secret")
    loaded = load(tmp_path, WHOLE.replace(old, new))
    assert any(line in problem for problem in loaded.unsupported)
    with Fleet(loaded.configuration) as fleet:
        for use in (fleet.vault, fleet.inspect):
            with pytest.raises(FeatureUnsupported):
                use("erp")
        with pytest.raises(FeatureUnsupported):
            fleet.engine("erp/Sales")
