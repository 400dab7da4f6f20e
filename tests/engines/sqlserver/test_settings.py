"""What policy files say of SQL Server instances: no setting promises what is not done."""

from __future__ import annotations

from pathlib import Path

import pytest

from sqlbak.errors import FeatureUnsupported
from sqlbak.fleet import Fleet
from sqlbak.policy.instance_settings import SqlServerInstance
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


BUCKET = "url: s3://acme-backups/prod"


@pytest.mark.parametrize(
    ("vault", "url"),
    [
        (BUCKET, "s3://s3.eu-central-1.amazonaws.com/acme-backups/prod"),
        (BUCKET, "s3://acme-backups.s3.eu-central-1.amazonaws.com/prod/"),
        (BUCKET, "s3://minio.example.com:9000/acme-backups/prod"),
        ("url: s3://acme-backups", "s3://acme-backups.minio.example.com"),
    ],
)
def test_a_server_may_write_into_the_vault_itself(tmp_path: Path, vault: str, url: str) -> None:
    loaded = load(
        tmp_path,
        WHOLE.replace(BUCKET, vault).replace(DISK, f"delivery: {{url: {url}}}"),
    )
    assert loaded.unsupported == ()
    instance = loaded.configuration.instances["erp"]
    assert isinstance(instance, SqlServerInstance)
    assert instance.delivery.url == url.rstrip("/")


@pytest.mark.parametrize(
    ("vault", "settings", "expected"),
    [
        (
            "url: file:///srv/vault",
            "delivery: {url: s3://h/b}",
            "writes to s3:// only; write disk:",
        ),
        (BUCKET, "delivery: {url: s3://acme-backups/prod}", "another place than the vault"),
        (BUCKET, "delivery: {url: s3://h/acme-backups/test}", "s3.REGION.amazonaws.com/acme-ba"),
        (BUCKET, "delivery: {url: s3://h/other/prod}", "another place than the vault"),
        (BUCKET, "delivery: {url: https://h/acme-backups/prod}", "must begin with s3://"),
        (BUCKET, "delivery: {url: s3://key@h/acme-backups/prod}", "holds credentials"),
        (BUCKET, f"delivery: {{url: s3://h/acme-backups/{'x' * 200}}}", "a shorter prefix"),
        (
            BUCKET,
            "delivery: {url: s3://h/acme-backups/prod}\n    compression: none",
            "write compression: auto",
        ),
        (
            BUCKET + "\n    encryption: {key: env:KEY}",
            "delivery: {url: s3://h/acme-backups/prod}",
            "the vault's encryption would not hold",
        ),
    ],
)
def test_a_url_that_cannot_be_written_to_is_named_with_its_line(
    tmp_path: Path, vault: str, settings: str, expected: str
) -> None:
    found = problems(
        tmp_path,
        WHOLE.replace(BUCKET, vault).replace(DISK, settings),
    )
    assert len(found) == 1, found
    assert expected in found[0]
    assert "instances.erp" in found[0]
