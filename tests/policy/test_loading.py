from __future__ import annotations

from pathlib import Path

import pytest

from sqlbak.errors import ConfigurationInvalid
from sqlbak.model import DifferentialMethod
from sqlbak.policy.instance_settings import PostgresInstance, SqlServerInstance
from sqlbak.policy.loading import load_configuration
from sqlbak.policy.schema import LogCadence
from sqlbak.policy.settings import LiteralDsn
from sqlbak.policy.unsupported import unsupported_for
from tests.policy.documents import MINIMAL, WHOLE, load, problems

SECRET = "hunter2"


def test_a_whole_document_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load(tmp_path, WHOLE)
    configuration = loaded.configuration
    gold = configuration.policy_for("orders")
    assert gold is configuration.policies["gold"]
    assert configuration.vault_for("orders").url == "s3://acme-backups/prod"
    assert gold.log is LogCadence.EVERY_15_MINUTES
    assert str(gold.zone) == "Europe/Berlin"
    assert str(gold.retention.yearly) == "7y"
    orders = configuration.instances["orders"]
    assert isinstance(orders, PostgresInstance)
    monkeypatch.setenv("ORDERS_DSN", "host=db")
    assert orders.dsn.resolve() == "host=db"
    erp = configuration.instances["erp"]
    assert isinstance(erp, SqlServerInstance)
    assert erp.databases.exclude == ("tempdb",)
    assert loaded.files == (tmp_path / "policy.yaml",)


def test_a_vault_without_policies_has_the_default_policy(tmp_path: Path) -> None:
    configuration = load(tmp_path, MINIMAL).configuration
    assert configuration.instances["orders"].policy == "DefaultPolicy"
    policy = configuration.policy_for("orders")
    assert (policy.vault, policy.timezone, str(policy.full), policy.log) == (
        "main",
        "UTC",
        "0 22 * * *",
        "15m",
    )
    assert (str(policy.retention.full), str(policy.retention.log)) == ("30d", "15d")


def test_an_instance_without_policy_has_the_only_one(tmp_path: Path) -> None:
    text = MINIMAL + 'policies:\n  only: {vault: main, full: "0 1 * * *"}\n'
    configuration = load(tmp_path, text).configuration
    assert configuration.instances["orders"].policy == "only"
    assert "DefaultPolicy" not in configuration.policies


def test_an_instance_without_policy_among_several_is_asked_which(tmp_path: Path) -> None:
    text = MINIMAL + (
        "policies:\n"
        '  one: {vault: main, full: "0 1 * * *"}\n'
        '  two: {vault: main, full: "0 1 * * *"}\n'
    )
    assert problems(tmp_path, text) == [
        "4: instances.orders.policy: is missing, and several could be meant; "
        "write policy: one or policy: two"
    ]


def test_an_instance_without_any_vault_is_told_so(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, 'instances:\n  a: {engine: postgres, dsn: "env:A"}\n')
    assert problem.startswith("2: instances.a.policy: ")
    assert "vaults:" in problem


def test_a_folder_is_read_as_one_document(tmp_path: Path) -> None:
    vaults, rest = WHOLE.split("policies:")
    (tmp_path / "b.yaml").write_text(vaults)
    (tmp_path / "a.yml").write_text("policies:" + rest)
    (tmp_path / "notes.txt").write_text("not: [read")
    (tmp_path / ".hidden.yaml").write_text("not: [read")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "c.yaml").write_text("not: [read")
    loaded = load_configuration(tmp_path)
    assert loaded.files == (tmp_path / "a.yml", tmp_path / "b.yaml")
    assert set(loaded.configuration.instances) == {"orders", "erp"}


def test_one_name_in_two_files_is_refused_with_both_places(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(MINIMAL)
    (tmp_path / "b.yaml").write_text("# second\n" + MINIMAL)
    with pytest.raises(ConfigurationInvalid) as refused:
        load_configuration(tmp_path)
    assert refused.value.problems == (
        f"{tmp_path}/b.yaml:3: vaults.main: is defined twice, first at {tmp_path}/a.yaml:2; "
        "rename or remove one",
        f"{tmp_path}/b.yaml:5: instances.orders: is defined twice, first at {tmp_path}/a.yaml:4; "
        "rename or remove one",
    )
    assert refused.value.exit_code == 2


def test_every_problem_of_every_file_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        WHOLE.replace("redundancy: local", "redundency: local")
        .replace("Europe/Berlin", "Berlin")
        .replace("mon-sat", "mon-sun")
        .replace("log: 15m", "log: 45m")
        .replace("full: 30d", "full: 6d")
        .replace("weekly", "wekly")
        .replace('"env:ORDERS_DSN"', "postgresql://sqlbak:hunter2@db/postgres")
        .replace("policy: gold}", "policy: glod}")
    )
    (tmp_path / "b.yaml").write_text("instance: {}\n")
    (tmp_path / "c.yaml").write_text("vaults: [\n")
    with pytest.raises(ConfigurationInvalid) as refused:
        load_configuration(tmp_path)
    lines = [problem.removeprefix(f"{tmp_path}/") for problem in refused.value.problems]
    assert [line.split(": ")[:2] for line in lines] == [
        ["a.yaml:2", "vaults.main.redundancy"],
        ["a.yaml:4", "vaults.main.redundency"],
        ["a.yaml:8", "policies.gold.timezone"],
        ["a.yaml:10", "policies.gold.differential"],
        ["a.yaml:11", "policies.gold.log"],
        ["a.yaml:12", "policies.gold.retention.wekly"],
        ["a.yaml:12", "policies.gold.retention.full"],
        ["a.yaml:14", "instances.orders.dsn"],
        ["a.yaml:14", "instances.orders.policy"],
        ["b.yaml:1", "'instance'"],
        ["c.yaml:2", "a bracket '[' or '{' is not closed or holds something misplaced; close it"],
    ]
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "gold:\n",
            "gold:\n    vualt: x\n",
            "7: policies.gold.vualt: unknown key; did you mean 'vault'?",
        ),
        ("    vault: main\n", "", "6: policies.gold.vault: is missing; write vault: main"),
        (
            "vault: main",
            "vault: mian",
            "7: policies.gold.vault: there is no vault 'mian'; did you mean 'main'?",
        ),
        (
            "vault: main",
            "vault: 7",
            "7: policies.gold.vault: must be text, not a number; write vault: main",
        ),
        (
            "vault: main",
            "vault:",
            "7: 'policies.gold.vault' has no value; write one, or remove the key",
        ),
        ("log: 15m", "log:", "11: 'policies.gold.log' has no value; write one, or remove the key"),
        (
            "log: 15m",
            "log: 10m",
            "11: policies.gold.log: must be one of 15m, 30m, 1h, 2h, 4h, 8h, 12h or 24h; write",
        ),
        (
            "log: 15m",
            "log: 15",
            "11: policies.gold.log: must be text, not a number; write log: 15m",
        ),
        (
            '"0 1 * * sun"',
            "[1]",
            '9: policies.gold.full: must be text, not a list; write full: "0 1 * * sun"',
        ),
        ("Europe/Berlin", "Europe/Berln", "did you mean Europe/Berlin?"),
        ("Europe/Berlin", "W. Europe Standard Time", "IANA"),
        ("Europe/Berlin", "../etc/passwd", "IANA"),
        ("Europe/Berlin", "right/Europe/Berlin", "IANA"),
        ("Europe/Berlin", "Factory", "IANA"),
        ("engine: postgres", "engine: postgresql", "write engine: postgres or engine: sqlserver"),
        ("engine: postgres, ", "", "'engine' is missing"),
        ("  orders: {engine", "  or/ders: {engine", "14: instances.or/ders: the name must be"),
        ("  orders: {engine", "  7: {engine", "14: a key must be text; put it in quotes"),
        ("local_path: /mnt/erp-backup", "", "delivery.disk.local_path: is missing"),
        (
            "delivery: {disk: {server_path: /var/opt/mssql/backup, local_path: /mnt/erp-backup}}",
            "delivery: {}",
            "exactly one of disk: and url:",
        ),
        ('["*"]', '"*"', "databases.include: must be a list, not text"),
        ('["*"]', "[1]", "databases.include.0: must be text, not a number"),
        ('["*"]', "[]", 'write include: ["*"]'),
        ("user: sqlbak", "user: sqlbak\n    port: 70000", "port"),
        (
            "user: sqlbak",
            "user: sqlbak\n    replicas: {NODE1: {hots: a}}",
            "19: instances.erp.replicas.NODE1.hots: unknown key; did you mean 'host'?",
        ),
        (
            "user: sqlbak",
            "user: sqlbak\n    replicas: {NODE1: {port: 0}}",
            "19: instances.erp.replicas.NODE1.port",
        ),
        (
            "user: sqlbak",
            "user: sqlbak\n    replicas: [NODE1]",
            "19: instances.erp.replicas: must be a mapping, not a list; write replicas: {NODE1:",
        ),
        (
            "user: sqlbak",
            "user: sqlbak\n    replicas: {NODE1: {}, node1: {host: b}}",
            "19: instances.erp.replicas.node1: is the same server as 'NODE1'; write it once",
        ),
        (
            "user: sqlbak",
            "user: sqlbak\n    replicas: {NODE1: {host: A}, NODE2: {host: a}}",
            "replicas.NODE2: is at the same address as 'NODE1'",
        ),
        (
            "user: sqlbak",
            "user: sqlbak\n    replicas: {NODE1: {delivery: {}}}",
            "replicas.NODE1.delivery: may be disk: {server_path",
        ),
        ('"env:ERP_PASSWORD"', "hunter2", "a secret never stands in the file"),
        (
            '"env:ERP_PASSWORD"',
            "[hunter2]",
            "password: must be text, not a list; write password: env:ERP_PASSWORD",
        ),
        ("s3://acme-backups/prod", "s3://key:hunter2@acme/prod", "holds credentials"),
        ("s3://acme-backups/prod", "https://acme", "s3://bucket/prefix"),
        ("s3://acme-backups/prod", "s3://Acme_Backups/prod", "bucket name"),
        ("s3://acme-backups/prod", "s3://acme-backups/a/../b", "s3://bucket/prefix"),
        ("s3://acme-backups/prod", "file://vault", "file:///"),
        ("s3://acme-backups/prod", "file:///", "file:///"),
        ("s3://acme-backups/prod", "file:///a%20b", "%"),
        ("s3://acme-backups/prod", '"file:///a "', "space around it"),
        ("redundancy: local", "redundancy: twice", "must be one of local or geo"),
        (
            "    redundancy: local\n",
            "",
            "2: vaults.main.redundancy: is missing; write redundancy: local",
        ),
    ],
)
def test_a_mistake_is_named_with_its_line_and_what_to_write(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    assert old in WHOLE
    found = problems(tmp_path, WHOLE.replace(old, new, 1))
    assert [problem for problem in found if expected in problem], found
    assert len(found) == 1, found
    assert SECRET not in found[0]


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://sqlbak:hunter2@db.example.com/postgres",
        "postgres://db.example.com/postgres?user=sqlbak&password=hunter2",
        "postgresql://db.example.com/postgres?pass%77ord=hunter2",
        "host=db user=sqlbak password=hunter2",
        "host=db user=sqlbak password = 'hunter2'",
        "host=db sslpassword=hunter2",
    ],
)
def test_a_password_in_a_dsn_is_refused_and_never_repeated(tmp_path: Path, dsn: str) -> None:
    (problem,) = problems(tmp_path, MINIMAL.replace("env:ORDERS_DSN", dsn))
    assert problem.startswith("4: instances.orders.dsn: ")
    assert "write password as reference" in problem
    assert SECRET not in problem


@pytest.mark.parametrize(
    "dsn", ["hunter2", "host=db hunter2", "mysql://a:hunter2@b", "host=db frob=hunter2", " "]
)
def test_what_is_no_dsn_is_refused_and_never_repeated(tmp_path: Path, dsn: str) -> None:
    (problem,) = problems(tmp_path, MINIMAL.replace("env:ORDERS_DSN", dsn))
    assert problem.startswith("4: instances.orders.dsn: ")
    assert "env:NAME" in problem
    assert SECRET not in problem


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://sqlbak@db/postgres",
        "host=/run/postgresql user=sqlbak passfile=/etc/sqlbak/pgpass",
    ],
)
def test_a_dsn_without_a_password_may_stand_in_the_file(tmp_path: Path, dsn: str) -> None:
    instance = load(tmp_path, MINIMAL.replace("env:ORDERS_DSN", dsn)).configuration.instances[
        "orders"
    ]
    assert isinstance(instance, PostgresInstance)
    assert instance.dsn == LiteralDsn(dsn)
    assert instance.dsn.resolve() == dsn


def test_references_and_paths_start_from_the_folder_of_their_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "dsn").write_text("host=db\n")
    monkeypatch.chdir(tmp_path)
    text = MINIMAL.replace('"env:ORDERS_DSN"', "file:dsn, pg_bin: bin")
    (folder / "a.yaml").write_text(text)
    instance = load_configuration("policies").configuration.instances["orders"]
    assert isinstance(instance, PostgresInstance)
    monkeypatch.chdir("/")
    assert instance.dsn.resolve() == "host=db"
    assert instance.pg_bin == folder / "bin"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("endpoint: ftp://s", "URL of a server"),
        ("endpoint: https://user:hunter2@s", "holds credentials"),
        ("endpoint: https://s/bucket", "URL of a server"),
        ("endpoint: https://s:99999", "URL of a server"),
        ("addressing: virtuel", "auto, path or virtual"),
        ("access_key: AKIAHUNTER", "a secret never stands"),
        ("access_key: env:A", "both or neither"),
        ("session_token: env:A", "needs access_key"),
        ("endpiont: https://s", "did you mean 'endpoint'?"),
    ],
)
def test_s3_settings_are_checked(tmp_path: Path, settings: str, expected: str) -> None:
    text = WHOLE.replace("redundancy: local", f"redundancy: local\n    s3:\n      {settings}")
    (problem,) = problems(tmp_path, text)
    assert expected in problem
    assert SECRET not in problem
    assert "HUNTER" not in problem


def test_s3_settings_are_read(tmp_path: Path) -> None:
    text = WHOLE.replace(
        "redundancy: local",
        "redundancy: local\n    s3: {endpoint: 'http://localhost:9000/', region: eu-1, "
        "addressing: path, ca_file: ca.pem, access_key: env:A, secret_key: file:b}",
    )
    s3 = load(tmp_path, text).configuration.vaults["main"].s3
    assert s3 is not None
    assert (s3.endpoint, s3.region, s3.addressing) == ("http://localhost:9000", "eu-1", "path")
    assert s3.ca_file == tmp_path / "ca.pem"
    assert (str(s3.access_key), str(s3.secret_key)) == ("env:A", "file:b")


def test_s3_settings_of_a_folder_are_refused(tmp_path: Path) -> None:
    text = MINIMAL.replace("redundancy: local", "redundancy: local, s3: {region: eu-1}")
    (problem,) = problems(tmp_path, text)
    assert "s3:// vault" in problem


def test_two_vaults_in_one_place_are_refused(tmp_path: Path) -> None:
    text = WHOLE.replace(
        "policies:", "  other: {url: s3://acme-backups/prod/, redundancy: local}\npolicies:"
    )
    (problem,) = problems(tmp_path, text)
    assert "same place as vault 'main'" in problem


@pytest.mark.parametrize(
    ("settings", "lines"),
    [
        ("redundancy: geo, secondary: s3://other/prod", ["redundancy", "secondary"]),
        ("redundancy: local, encryption: {key: env:KEY}", []),
        ("redundancy: local, soft_delete: 14d", []),
    ],
)
def test_protection_that_this_version_does_not_give_is_named_with_its_line(
    tmp_path: Path, settings: str, lines: list[str]
) -> None:
    file = tmp_path / "policies.yaml"
    file.write_text(MINIMAL.replace("redundancy: local", settings))
    loaded = load_configuration(file)
    found = [problem.split(": ") for problem in loaded.unsupported]
    assert [problem[1] for problem in found] == [f"vaults.main.{key}" for key in lines]
    assert all(problem[0].startswith(f"{file}:") for problem in found)
    assert all("this version" in problem for problem in loaded.unsupported)
    (instance,) = loaded.configuration.instances
    named = unsupported_for(loaded.configuration, instance)
    assert [problem.location[-1] for problem in named] == lines


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("redundancy: geo", "secondary: s3://bucket/prefix"),
        ("redundancy: local, secondary: s3://other/prod", "redundancy: local"),
        ("redundancy: geo, secondary: file:///var/lib/sqlbak/vault", "is the vault itself"),
        ("redundancy: local, soft_delete: 181d", "between 1d and 180d"),
        ("redundancy: local, encryption: {key: hunter2}", "a secret never stands"),
    ],
)
def test_settings_of_protection_are_checked_nevertheless(
    tmp_path: Path, settings: str, expected: str
) -> None:
    found = problems(tmp_path, MINIMAL.replace("redundancy: local", settings))
    assert any(expected in problem for problem in found)
    assert not any(SECRET in problem for problem in found)


def test_a_policy_may_rely_on_differentials_alone(tmp_path: Path) -> None:
    loaded = load(tmp_path, WHOLE.replace("    log: 15m\n", ""))
    assert loaded.unsupported == ()
    assert loaded.configuration.policies["gold"].differential_method is DifferentialMethod.AUTO


def test_the_method_of_differentials_is_one_of_three(tmp_path: Path) -> None:
    written = WHOLE.replace("    log: 15m\n", "    log: 15m\n    differential_method: native\n")
    policy = load(tmp_path, written).configuration.policies["gold"]
    assert policy.differential_method is DifferentialMethod.NATIVE
    (problem,) = problems(tmp_path, written.replace("native", "blocks"))
    assert "differential_method" in problem


def test_the_digest_says_whether_the_meaning_changed(tmp_path: Path) -> None:
    first = load(tmp_path, WHOLE).digest
    assert (
        load(tmp_path, "# a comment\n" + WHOLE.replace('"env:ORDERS_DSN"', "env:ORDERS_DSN")).digest
        == first
    )
    assert load(tmp_path, WHOLE.replace("log: 15m", "log: 30m")).digest != first
    assert load(tmp_path, WHOLE.replace("ORDERS_DSN", "OTHER_DSN")).digest != first


def test_anchors_and_merges_are_followed(tmp_path: Path) -> None:
    text = """\
vaults:
  main: {url: file:///vault, redundancy: local}
policies:
  gold: &gold
    vault: main
    full: "0 1 * * *"
    retention: &kept {full: 30d, log: 15d}
  silver:
    <<: *gold
    log: 1h
  bronze:
    <<: [{timezone: Europe/Berlin}, *gold]
    retention: {<<: *kept, full: 6d}
"""
    assert problems(tmp_path, text) == [
        "13: policies.bronze.retention.full: 6d is out of range; write between 7d and 9999d"
    ]
    configuration = load(tmp_path, text.replace("6d", "60d")).configuration
    assert str(configuration.policies["silver"].full) == "0 1 * * *"
    assert configuration.policies["bronze"].timezone == "Europe/Berlin"
    assert str(configuration.policies["bronze"].retention.full) == "60d"
    assert str(configuration.policies["bronze"].retention.log) == "15d"


CONTINUOUS = WHOLE.replace("log: 15m", "log: 15m\n    log_shipping: continuous")


def test_continuous_shipping_proves_an_instant_every_five_seconds_unless_said(
    tmp_path: Path,
) -> None:
    def interval(text: str) -> int | None:
        return load(tmp_path, text).configuration.policies["gold"].shipping_interval_seconds

    assert interval(WHOLE) is None
    assert interval(CONTINUOUS) == 5
    for seconds in (1, 60):
        line = f"continuous\n    log_shipping_interval: {seconds}"
        assert interval(CONTINUOUS.replace("continuous", line)) == seconds


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("log: 15m\n    ", "", "there are none; write log: 15m"),
        ("log_shipping: continuous", "log_shipping_interval: 5", "write log_shipping: continuous"),
        ("continuous", "always", "policies.gold.log_shipping"),
        ("continuous", "continuous\n    log_shipping_interval: 0", "log_shipping_interval"),
        ("continuous", "continuous\n    log_shipping_interval: 61", "log_shipping_interval"),
        ("continuous", "continuous\n    log_shipping_interval: 5s", "log_shipping_interval"),
    ],
)
def test_shipping_that_means_nothing_is_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in CONTINUOUS
    (problem,) = problems(tmp_path, CONTINUOUS.replace(old, new, 1))
    assert message in problem
