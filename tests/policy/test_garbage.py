"""Whatever stands in a policy file, the loader answers in one way: a configuration, or problems
that each begin with file and line, and never a value that could be a secret."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from ruamel.yaml.compat import StringIO

from sqlbak.errors import ConfigurationInvalid
from sqlbak.policy.loading import load_configuration
from tests.policy.documents import WHOLE
from tests.policy.strategies import once_a_day_lines


def answer(content: bytes) -> tuple[str, ...]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "policy.yaml"
        file.write_bytes(content)
        try:
            loaded = load_configuration(file)
        except ConfigurationInvalid as error:
            assert error.problems
            for problem in error.problems:
                assert re.match(rf"{re.escape(str(file))}:[1-9][0-9]*: .", problem), problem
                assert problem.isprintable()
            return error.problems
        assert len(loaded.digest) == 64
        return ()


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=200)
def test_bytes(content: bytes) -> None:
    assert answer(content)


@given(st.text(alphabet=st.sampled_from("ab:&*-[]{}<>|!%@`'\"#,? \n\t\\0~=."), max_size=60))
@example("? ? a")
@example("!<a")
@example("%TAG ! !\n--- !a b")
@example("<<: <<")
@example("*a : b")
@settings(deadline=None, max_examples=400)
def test_text_that_looks_like_yaml(text: str) -> None:
    assert answer(text.encode())


KEYS = st.sampled_from(
    [*re.findall(r"([a-z_]+):", WHOLE), "encryption", "s3", "endpoint", "secondary", "slot", "<<"]
)
SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.dates(),
    st.text(max_size=12),
    once_a_day_lines,
    st.sampled_from(
        [
            "main",
            "gold",
            "postgres",
            "sqlserver",
            "local",
            "geo",
            "15m",
            "30d",
            "7y",
            "env:A",
            "file:b",
            "s3://bucket/x",
            "file:///v",
            "UTC",
            "Europe/Berlin",
            "host=db",
            "a b=c",
        ]
    ),
)
TREES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda below: st.one_of(st.lists(below, max_size=3), st.dictionaries(KEYS, below, max_size=4)),
    max_leaves=12,
)


def dumped(tree: Any) -> bytes:
    stream = StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.allow_unicode = False
    yaml.dump(tree, stream)
    return str(stream.getvalue()).encode()


@given(st.dictionaries(st.sampled_from(["vaults", "policies", "instances", "x"]), TREES))
@settings(deadline=None, max_examples=200)
def test_trees(tree: Any) -> None:
    answer(dumped(tree))


def whole() -> Any:
    return YAML(typ="safe", pure=True).load(WHOLE)


def paths(tree: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    below = (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree)
        if isinstance(tree, list)
        else ()
    )
    return [each for key, part in below for each in ((*above, key), *paths(part, (*above, key)))]


@given(st.sampled_from(paths(whole())), TREES)
@settings(deadline=None, max_examples=300)
def test_a_document_with_one_part_exchanged(path: tuple[Any, ...], instead: Any) -> None:
    tree = whole()
    part = tree
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = instead
    answer(dumped(tree))


@given(st.sampled_from(paths(whole())))
@settings(deadline=None, max_examples=60)
def test_a_document_with_one_part_missing(path: tuple[Any, ...]) -> None:
    tree = whole()
    part = tree
    for key in path[:-1]:
        part = part[key]
    del part[path[-1]]
    answer(dumped(tree))


@given(st.integers(0, len(WHOLE)), st.integers(0, 30), st.text(max_size=10))
@example(81, 0, "0000\ud7fc")
@settings(deadline=None, max_examples=300)
def test_a_document_with_a_damaged_place(start: int, length: int, instead: str) -> None:
    answer((WHOLE[:start] + instead + WHOLE[start + length :]).encode())


SECRET = "tr0ub4dor"


@pytest.mark.parametrize("path", [path for path in paths(whole()) if not isinstance(path[-1], int)])
def test_a_secret_in_the_wrong_place_is_not_repeated(path: tuple[Any, ...]) -> None:
    if path[-1] in ("vault", "policy", "timezone", "full", "differential"):
        return  # names, zones and cron lines are repeated, so that their reader finds them
    for secret in (SECRET, [SECRET], {"key": SECRET}):
        tree = whole()
        part = tree
        for key in path[:-1]:
            part = part[key]
        part[path[-1]] = secret
        assert SECRET not in "".join(answer(dumped(tree)))


@pytest.mark.parametrize(
    "text",
    [
        f"a: *{SECRET}",
        f"a: '{SECRET}",
        f"a: {SECRET}: b",
        f"a: @{SECRET}",
        f"a: [{SECRET}",
        f"a: b\n{SECRET}\nc: d",
        f"password: {SECRET}\npassword: {SECRET}2",
        f'a: "\\{SECRET}"',
        f"a: |{SECRET}",
    ],
)
def test_a_secret_in_broken_yaml_is_not_repeated(text: str) -> None:
    assert SECRET not in "".join(answer(text.encode()))
