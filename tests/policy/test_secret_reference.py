from __future__ import annotations

from pathlib import Path

import pytest

from sqlbak.errors import SecretUnavailable
from sqlbak.policy.secret_reference import SecretReference

SECRET = "hunter2-correct-horse"


def test_an_environment_variable_is_read_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = SecretReference.parse("env:ORDERS_DSN")
    monkeypatch.setenv("ORDERS_DSN", SECRET)
    assert reference.resolve() == SECRET


def test_a_file_is_read_without_the_newline_that_editors_add(tmp_path: Path) -> None:
    (tmp_path / "dsn").write_bytes(b" p\xc3\xa4ss word \r\n")
    assert SecretReference.parse(f"file:{tmp_path}/dsn").resolve() == " päss word "


def test_a_relative_file_starts_from_the_folder_of_the_policy_file(tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text(SECRET)
    assert SecretReference.parse("file:dsn", tmp_path).resolve() == SECRET
    assert SecretReference.parse("file:./dsn", tmp_path).resolve() == SECRET


def test_the_reference_shows_where_the_secret_is_and_never_the_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ORDERS_DSN", SECRET)
    reference = SecretReference.parse("env:ORDERS_DSN")
    assert str(reference) == "env:ORDERS_DSN"
    assert SECRET not in repr(reference)


@pytest.mark.parametrize(
    "text",
    ["hunter2", "ENV:X", "env:", "env:A B", "env:1A", "env:Ä", "file:", "file: ", "file:a\0b", ""],
)
def test_what_is_no_reference_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"env:|file:") as refused:
        SecretReference.parse(text)
    assert "hunter2" not in str(refused.value)


def test_a_secret_that_is_not_there_is_named_by_its_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOT_THERE", raising=False)
    monkeypatch.setenv("EMPTY", "")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(SECRET.encode() + b"\xff\xfe")
    (tmp_path / "huge").write_text(SECRET * 10_000)
    references = ["env:NOT_THERE", "env:EMPTY"] + [
        f"file:{tmp_path}/{name}" for name in ("none", "empty", "binary", "huge", "")
    ]
    for text in references:
        with pytest.raises(SecretUnavailable) as refused:
            SecretReference.parse(text).resolve()
        assert text in refused.value.message
        assert refused.value.hint
        assert SECRET not in refused.value.message + refused.value.hint
        assert refused.value.__cause__ is None or SECRET not in str(refused.value.__cause__)
