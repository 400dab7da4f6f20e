"""Which keys are legal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlbak.errors import ObjectKeyInvalid
from sqlbak.vault.keys import MAX_KEY_BYTES, check_key, check_prefix, is_key

letters = st.sampled_from([chr(code) for code in range(0x20, 0x7F) if chr(code) != "/"])
segments = st.text(letters, min_size=1, max_size=240).filter(lambda text: text[0] != ".")
legal_keys = (
    st.lists(segments, min_size=1, max_size=6)
    .map("/".join)
    .filter(lambda key: len(key) <= MAX_KEY_BYTES)
)


@given(legal_keys)
def test_keys_of_printable_segments_are_legal(key: str) -> None:
    assert is_key(key)
    assert check_key(key) == key


@given(legal_keys, st.data())
def test_every_beginning_of_a_key_is_a_prefix(key: str, data: st.DataObject) -> None:
    prefix = key[: data.draw(st.integers(0, len(key)))]
    assert check_prefix(prefix) == prefix


@given(st.text())
def test_a_legal_key_never_leaves_its_folder(key: str) -> None:
    if is_key(key):
        parts = key.split("/")
        assert not {"", ".", ".."} & set(parts)
        assert key.isascii()
        assert key.isprintable()


@pytest.mark.parametrize(
    "key", ["", "a" * 241, "/".join(["a" * 200] * 5), ".sqlbak/lock", "a/..", "a\\\n", "é"]
)
def test_other_keys_are_refused_with_a_reason(key: str) -> None:
    with pytest.raises(ObjectKeyInvalid, match="cannot be an object's key: "):
        check_key(key)
