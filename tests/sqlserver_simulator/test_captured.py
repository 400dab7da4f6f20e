"""The simulator answers as SQL Server 2022 did: columns, types, flags, messages, DONE tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .simulator import Simulator
from .wireclient import Answer, WireClient

CAPTURED = json.loads(Path(__file__).with_name("captured.json").read_text())
CASES = CAPTURED["cases"]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Answer]]:
    """All cases in their order, as each builds on those before it."""
    with Simulator({"/tmp": tmp_path_factory.mktemp("media")}) as simulator:
        login = (simulator.host, simulator.port, "sa", simulator.sa_password)
        client = WireClient(*login)
        found = {}
        for case in CASES:
            other = WireClient(*login) if "other" in case else None
            if other is not None:
                other.batch(case["other"])
            found[case["name"]] = client.batch(case["sql"])
            if other is not None:
                other.close()
        client.close()
        yield found


def expected_columns(case: dict[str, Any]) -> list[str]:
    text = CAPTURED["headers"].get(case["columns"], case["columns"])
    return [each if each.count(":") == 2 else f"{each}:1" for each in text.split()]


def expected_text(info: list[Any]) -> str:
    template = CAPTURED["texts"].get(info[1], info[1])
    pattern = re.escape(template.format(*info[2:])).replace(r"\#", r"[\d.]+")
    return f"^{pattern}$"


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_a_statement_is_answered_as_captured(
    case: dict[str, Any], answers: dict[str, Answer]
) -> None:
    answer = answers[case["name"]]
    assert answer.done == case["done"]
    assert [list(each) for each in answer.errors] == case.get("errors", [])
    if case.get("info") != "ignored":
        assert [each[0] for each in answer.info] == [each[0] for each in case.get("info", [])]
        for (_, state, severity, text), wanted in zip(
            answer.info, case.get("info", []), strict=True
        ):
            assert (state, severity) == (1, 0)
            assert re.match(expected_text(wanted), text)
    if "columns" in case:
        assert answer.columns == [expected_columns(case)]
        assert len(answer.rows) == len(case["rows"])
        for row, wanted in zip(answer.rows, case["rows"], strict=True):
            shown = ["*" if w == "*" else v for v, w in zip(row, wanted, strict=True)]
            assert shown == wanted
    else:
        assert not answer.columns


def test_each_message_of_a_backup_has_its_own_done(answers: dict[str, Answer]) -> None:
    order = answers["a second set on the same media"].order
    assert order == [
        "info 3211", "done/1/228/0", "info 3211", "done/1/228/0", "info 4035", "done/1/228/0",
        "info 4035", "done/1/228/0", "info 3014", "done/0/228/0",
    ]  # fmt: skip
