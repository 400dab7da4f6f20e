"""TO URL = 's3://...' against a real S3 server of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from tests.vault.s3_servers import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server, start_moto

from .rules import Rules
from .simulator import Simulator

pytestmark = pytest.mark.s3
OPTIONS = "FORMAT, COMPRESSION, CHECKSUM, MAXTRANSFERSIZE = 5242880"
URL = f"s3://s3.example.com:9000/{BUCKET}/erp/shop.bak"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with start_moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture
def client(store: S3Server) -> Any:
    return boto3.client(
        "s3", endpoint_url=store.endpoint, aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY, region_name="us-east-1",
    )  # fmt: skip


@pytest.fixture
def rules(store: S3Server) -> Rules:
    simulator = Simulator(s3_endpoints={"s3.example.com:9000": store.endpoint})
    simulator.create_database("shop", rows=["a"], filler_bytes=11_000_000)
    simulator.execute(
        f"CREATE CREDENTIAL [s3://s3.example.com:9000/{BUCKET}] WITH IDENTITY = 'S3 Access Key', "
        f"SECRET = '{ACCESS_KEY}:{SECRET_KEY}'"
    )
    return Rules(simulator)


def test_a_backup_goes_up_in_parts_and_comes_back(rules: Rules, client: Any) -> None:
    simulator = rules.simulator
    simulator.execute(f"BACKUP DATABASE shop TO URL = '{URL}' WITH {OPTIONS}")
    head = client.head_object(Bucket=BUCKET, Key="erp/shop.bak")
    assert head["ETag"].strip('"').endswith("-3")
    header = simulator.execute(f"RESTORE HEADERONLY FROM URL = '{URL}'")[0]
    assert (header[6], header[9]) == (9, "shop")
    simulator.execute(
        f"RESTORE DATABASE copy FROM URL = '{URL}' WITH MOVE 'shop' TO '/var/opt/mssql/data/c.mdf',"
        " MOVE 'shop_log' TO '/var/opt/mssql/data/c.ldf'"
    )
    assert simulator.rows("copy") == ["a"]
    rules.refused(f"BACKUP DATABASE shop TO URL = '{URL}'", 3296, 3013)


def test_a_failed_backup_leaves_its_parts(rules: Rules, client: Any) -> None:
    rules.simulator.faults.add("write", at_percent=90, device=URL)
    rules.refused(f"BACKUP DATABASE shop TO URL = '{URL}x' WITH {OPTIONS}", 3202, 3013)
    uploads = client.list_multipart_uploads(Bucket=BUCKET)["Uploads"]
    assert [each["Key"] for each in uploads] == ["erp/shop.bakx"]


@pytest.mark.parametrize(
    ("url", "options", "number", "text"),
    [
        (f"s3://elsewhere:1/{BUCKET}/x", "FORMAT", 3201, "50("),
        ("s3://s3.example.com:9000/missing/x", "FORMAT", 3201, "50("),
        (URL, "FORMAT, MAXTRANSFERSIZE = 5242880", 3217, ""),
        (URL, "FORMAT, COMPRESSION, MAXTRANSFERSIZE = 4194304", 3250, ""),
        (URL, "INIT", 3032, ""),
        (URL, "FORMAT, CREDENTIAL = 'none'", 3288, ""),
        (URL + "x" * 250, "FORMAT", 3057, ""),
    ],
)
def test_what_the_server_refuses(
    rules: Rules, url: str, options: str, number: int, text: str
) -> None:
    if "missing" in url:
        rules.simulator.execute(
            "CREATE CREDENTIAL [s3://s3.example.com:9000/missing] WITH "
            f"IDENTITY = 'S3 Access Key', SECRET = '{ACCESS_KEY}:{SECRET_KEY}'"
        )
    texts = rules.refused(f"BACKUP DATABASE shop TO URL = '{url}' WITH {options}", number, 3013)
    assert text in texts[0]


def test_a_wrong_identity_untrusted_tls_and_an_old_server(rules: Rules) -> None:
    simulator = rules.simulator
    backup = f"BACKUP DATABASE shop TO URL = '{URL}' WITH FORMAT"
    simulator.faults.s3_error = "5(Access is denied.)"
    assert "5(" in rules.refused(backup, 3201, 3013)[0]
    simulator.faults.clear()
    simulator.instance.s3_endpoints.clear()
    assert "12175" in rules.refused(backup, 3201, 3013)[0]
    simulator.execute(
        f"DROP CREDENTIAL [s3://s3.example.com:9000/{BUCKET}]; CREATE CREDENTIAL "
        f"[s3://s3.example.com:9000] WITH IDENTITY = 'AWS', SECRET = 'a:b'"
    )
    rules.refused(backup, 3233, 3013)
    old = Simulator(year=2019)
    old.create_database("shop")
    Rules(old).refused(backup, 3201, 3013)
