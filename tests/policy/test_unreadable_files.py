"""Files that are no policy files at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sqlbak.errors import ConfigurationInvalid
from sqlbak.policy.loading import load_configuration
from tests.policy.documents import MINIMAL, load, problems


def refused(path: Path) -> str:
    with pytest.raises(ConfigurationInvalid) as error:
        load_configuration(path)
    (problem,) = error.value.problems
    return problem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "1: the file is empty"),
        ("# only a comment\n", "1: the file is empty"),
        ("---\n", "1: the file is empty"),
        ("{}", "1: nothing is defined"),
        ("vaults: {}\n", "1: nothing is defined"),
        ("vaults:\n", "1: 'vaults' has no value"),
        ("- a\n", "1: must be a mapping"),
        ("just text", "1: must be a mapping"),
        ("vaults: 7", "1: vaults: must be a mapping"),
        ("vaults: {main: 7}", "1: vaults.main: must be a mapping with keys of url"),
        ("instances: {a: 7}", "1: instances.a: must be a mapping"),
        ("vaults:\n\tmain: {}", "2: a tab is used for indentation"),
        ("vaults: {}\nvaults: {}", "2: the key 'vaults' stands twice, first in line 1"),
        ("vaults:\n  a:\n    url: x\n    url: hunter2", "4: the key 'url' stands twice"),
        ("vaults: {}\n---\nvaults: {}", "2: a second document begins"),
        ("policies:\n  a:\n    full: * * * * *", "3: an alias (*name) stands for nothing"),
        ("policies:\n  a:\n    full: @daily", "3: text begins with a character"),
        ("policies:\n  a: 'x", "2: a quoted text is not closed"),
        ("policies:\n  a: b: c", "2: a second ': ' stands in one line"),
        ("vaults: {\n", "2: a bracket"),
        ("vaults: !!python/object:os.system x", "1: the tag '"),
        ("vaults: !secret x", "1: the tag '!secret' means nothing here"),
        ("vaults: !!set {a}", "1: the tag '"),
        ("? [a, b]\n: c\n", "1: a key must be text"),
        ("1: {}\n", "1: a key must be text"),
        ("vaults: \x07", "1: holds a control character"),
        ("a: 1\nb: \x00", "2: holds a control character"),
        ("vaults: &a {b: *a}", "1: an alias (*name) stands inside what it stands for"),
        ("vaults: &a\n  <<: *a", "2: an alias (*name) stands inside what it stands for"),
        ("vaults: {<<: 7}", "1: '<<' merges mappings only"),
        ("vaults: " + "[" * 3000, "1: is nested deeper"),
        ("vaults: " + "{a: " * 3000, "1: is nested deeper"),
        ("%YAML 3.0\n---\na: 1", "1: is not YAML"),
    ],
)
def test_a_file_that_is_not_a_policy_file_is_refused(
    tmp_path: Path, text: str, expected: str
) -> None:
    found = problems(tmp_path, text)
    assert [problem for problem in found if problem.startswith(expected)], found
    assert not any("hunter2" in problem for problem in found)


def test_aliases_cannot_blow_up_the_memory(tmp_path: Path) -> None:
    laughs = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    laughs += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 15)]
    found = problems(tmp_path, "\n".join(laughs))
    assert any("aliases make more than" in problem for problem in found)
    merges = ["a0: &a0 {x: 1}"]
    merges += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 15)]
    assert problems(tmp_path, "\n".join(merges))


def test_bytes_that_are_not_utf_8_are_named_by_line(tmp_path: Path) -> None:
    assert problems(tmp_path, b"vaults: {}\n# caf\xe9\n") == [
        "2: is not UTF-8 text; save the file as UTF-8"
    ]
    assert problems(tmp_path, MINIMAL.encode("utf-16")) == [
        "1: is not UTF-8 text; save the file as UTF-8"
    ]


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    assert load(tmp_path, b"\xef\xbb\xbf" + MINIMAL.replace("\n", "\r\n").encode())


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, MINIMAL + "#" * 1024 * 1024)
    assert "larger than" in problem


def test_a_path_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "none").startswith(
        f"{tmp_path}/none:1: the file cannot be read: No such"
    )
    assert refused(Path("a\0b")).startswith("a\\x00b:1: ")


def test_a_folder_without_policy_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_text("{}")
    assert refused(tmp_path) == (
        f"{tmp_path}:1: the folder holds no *.yaml or *.yml file; write one, or name another folder"
    )


def test_what_is_named_like_a_file_but_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").mkdir()
    assert refused(tmp_path).startswith(f"{tmp_path}/a.yaml:1: is not a file")
    (tmp_path / "a.yaml").rmdir()
    os.mkfifo(tmp_path / "a.yaml")
    assert refused(tmp_path).startswith(f"{tmp_path}/a.yaml:1: is not a file")
    (tmp_path / "a.yaml").unlink()
    (tmp_path / "a.yaml").symlink_to(tmp_path / "a.yaml")
    assert refused(tmp_path).startswith(f"{tmp_path}/a.yaml:1: the file cannot be read")


def test_a_file_name_cannot_break_the_message(tmp_path: Path) -> None:
    (tmp_path / "a\n\x1bb.yaml").write_text("")
    assert "\\n\\x1bb.yaml:1: the file is empty" in refused(tmp_path)
