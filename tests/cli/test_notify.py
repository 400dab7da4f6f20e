"""``sqlbak notify``: a person proves that notices arrive before they are needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sqlbak.cli.main import main
from tests.engines.postgres.clusters import free_port
from tests.monitor.receivers import webhook


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "policy.yaml"
    file.write_text(
        "vaults:\n  main: {url: file:///srv/vault, redundancy: local}\n"
        'instances:\n  orders: {engine: postgres, dsn: "host=db"}\n'
        "notifications:\n  hook:\n    webhook: {url: env:HOOK}\n"
        f"  mail:\n    mail: {{server: 127.0.0.1, port: {free_port()}, security: none, "
        "sender: a@example.com, to: [b@example.com]}\n"
    )
    monkeypatch.setenv("SQLBAK_CONFIG", str(file))
    return file


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    with pytest.raises(SystemExit) as ended:
        main(["notify", *words, "--json"])
    return int(ended.value.code or 0), json.loads(capsys.readouterr().out)


def test_a_test_says_for_each_receiver_whether_it_took_the_notice(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with webhook() as hook:
        monkeypatch.setenv("HOOK", hook.url)
        code, document = run(capsys, "--test")
        alone, _ = run(capsys, "hook", "--test")
    assert (code, alone) == (1, 0)
    tests = {one["name"]: one["test"] for one in document["receivers"]}
    assert tests["hook"] == {"delivered": True, "error": None, "remark": ""}
    assert tests["mail"]["error"]["code"] == "notification_failed"
    assert [kind for _, kind in hook.kinds()] == ["test", "test"]


def test_without_a_test_nothing_is_sent_and_no_secret_is_needed(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document = run(capsys)
    assert code == 0
    assert [(one["name"], one["way"]) for one in document["receivers"]] == [
        ("hook", "webhook"),
        ("mail", "mail"),
    ]


def test_a_receiver_that_is_not_there_is_a_wrong_usage(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, "nobody")[0] == 2
