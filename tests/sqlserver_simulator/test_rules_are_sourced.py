"""RULES.md names the source of every message that the simulator sends."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent


def sent() -> set[int]:
    """Numbers of all messages in the code."""
    found = set()
    for path in HERE.glob("*.py"):
        if path.name.startswith("test_"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in {"SqlError", "Message"}
                and node.args
                and isinstance(node.args[0], ast.Constant)
            ):
                found.add(int(node.args[0].value))
    return found


def test_every_message_has_a_source() -> None:
    text = (HERE / "RULES.md").read_text()
    listed = {
        int(number)
        for line in text[text.index("## Messages") :].splitlines()
        if line.startswith("|")
        for number in re.findall(r"\d+", line.split("|")[1])
    }
    assert sent() - listed == set()
    assert listed - sent() == set()


def test_every_place_that_a_rule_names_exists() -> None:
    text = (HERE / "RULES.md").read_text()
    modules = {path.stem for path in HERE.glob("*.py")}
    for line in text.splitlines():
        cells = line.split("|")
        if len(cells) < 5 or cells[2].strip() in {"where", "---"}:
            continue
        for place in re.findall(r"`([\w.]+)`", cells[2]):
            module, *names = place.split(".")
            assert module in modules, place
            source = (HERE / f"{module}.py").read_text()
            for name in names:
                assert re.search(rf"\b(def|class) {name}\b", source), place
