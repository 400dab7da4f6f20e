"""``--from FOLDER`` with the keys of an encrypted vault."""

from __future__ import annotations

from pathlib import Path

import pytest

from sqlbak.cli.output import Output
from sqlbak.cli.session import Session
from sqlbak.errors import UsageError

SECRET = "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlYw=="


def test_another_command_is_told_with_all_that_this_one_was_given() -> None:
    keys = ["env:KEY", "file:/run/old.key"]
    folder = Session.folder(Path("/copy"), keys, plain_points=True)
    assert folder is not None
    told = Session(Path("policies"), Output(as_json=True), quiet=True).own_command("feed", folder)
    words = ("--vault-key", "env:KEY", "--vault-key", "file:/run/old.key", "--plain-points")
    assert told == ("sqlbak", "feed", "--from", "/copy", *words)


@pytest.mark.parametrize(
    ("source", "keys", "plain_points", "expected"),
    [
        (None, ["env:KEY"], False, "--vault-key goes with --from only"),
        (Path("/copy"), None, True, "--plain-points goes with --vault-key only"),
        (Path("/copy"), [SECRET], False, "a secret never stands"),
    ],
)
def test_what_does_not_belong_together_is_refused_without_repeating_a_secret(
    source: Path | None, keys: list[str] | None, plain_points: bool, expected: str
) -> None:
    with pytest.raises(UsageError, match=expected) as caught:
        Session.folder(source, keys, plain_points=plain_points)
    assert SECRET not in caught.value.message + caught.value.hint
