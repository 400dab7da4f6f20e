"""What stands in the folder ``policies``: examples that work, and the schema for editors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

import sqlbak.policy
from sqlbak.policy.json_schema import policy_schema, published_text
from sqlbak.policy.loading import load_configuration
from tests.policy.documents import WHOLE

FOLDER = Path(__file__).parents[2] / "policies"
EXAMPLES = sorted(FOLDER.glob("*.yaml"))
REFERENCE = Path(__file__).parents[2] / "docs" / "policy-reference.md"
SECURITY = REFERENCE.with_name("security.md")


def test_there_are_three_examples() -> None:
    assert [file.name for file in EXAMPLES] == [
        "fleet-on-s3.yaml",
        "single-postgres.yaml",
        "small-vm.yaml",
    ]


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_each_example_is_valid_by_itself(file: Path) -> None:
    configuration = load_configuration(file).configuration
    assert configuration.instances
    for name in configuration.instances:
        assert configuration.policy_for(name).log is not None
        assert configuration.vault_for(name).redundancy == "local"


def test_the_examples_are_valid_together() -> None:
    together = load_configuration(FOLDER).configuration
    assert set(together.instances) == {"shop", "orders", "payments", "wiki", "metrics", "vm"}
    for file in EXAMPLES:
        alone = load_configuration(file).configuration
        for name, instance in alone.instances.items():
            assert together.instances[name] == instance
            assert together.policy_for(name) == alone.policy_for(name)


def test_the_published_schema_is_up_to_date() -> None:
    assert (FOLDER / "policy.schema.json").read_text() == published_text(), (
        "run: python -m sqlbak.policy.json_schema > policies/policy.schema.json"
    )


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_editors_find_the_schema_of_an_example(file: Path) -> None:
    first_line = file.read_text().splitlines()[0]
    assert first_line == "# yaml-language-server: $schema=./policy.schema.json"


def test_the_schema_accepts_what_the_loader_accepts() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(policy_schema())
    for text in [file.read_text() for file in EXAMPLES] + [WHOLE]:
        validator.validate(_plain(text))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("redundancy", "redundency"),
        ("log: 15m", "log: 45m"),
        ("log: 15m", "log: null"),
        ("30d", "30"),
        ("engine: postgres", "engine: mysql"),
        ('"env:ERP_PASSWORD"', "hunter2"),
        ("vault: main", "vault: 7"),
        ('include: ["*"]', "include: []"),
        ("s3://acme-backups/prod", "https://acme-backups/prod"),
    ],
)
def test_the_schema_refuses_what_an_editor_should_underline(old: str, new: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(policy_schema())
    assert old in WHOLE
    assert not validator.is_valid(_plain(WHOLE.replace(old, new)))


def test_every_key_is_explained_in_the_reference() -> None:
    text = REFERENCE.read_text()
    for model in policy_schema()["$defs"].values():
        for key in model.get("properties", {}):
            assert re.search(rf"`{key}`", text), f"docs/policy-reference.md does not explain {key}"


def test_every_example_in_the_reference_is_valid(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", REFERENCE.read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        (tmp_path / "policy.yaml").write_text(block)
        load_configuration(tmp_path / "policy.yaml")


def test_the_room_reads_no_clock() -> None:
    for file in Path(sqlbak.policy.__path__[0]).glob("*.py"):
        assert not re.search(r"\.now\(|\.today\(|time\.time\(|utcnow", file.read_text()), file.name


def _plain(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def test_the_example_of_an_encrypted_vault_is_valid_as_it_stands(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", SECURITY.read_text(), re.DOTALL)
    (tmp_path / "policy.yaml").write_text(text)
    encryption = load_configuration(tmp_path).configuration.vaults["main"].encryption
    assert encryption is not None
    assert str(encryption.key) == "file:/run/secrets/vault.key"
