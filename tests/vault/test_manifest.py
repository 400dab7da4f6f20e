"""A manifest comes back as it was written, or is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlbak.errors import ObjectDamaged, VaultUnusable
from sqlbak.vault import manifest as module
from sqlbak.vault.documents import encode
from sqlbak.vault.manifest import Manifest, decode_manifest, encode_manifest
from tests.vault.strategies import manifests

KEY = "items/orders/points/x.json"


@settings(deadline=None, max_examples=60)
@given(manifests)
def test_whatever_is_written_is_read_back(manifest: Manifest) -> None:
    assert decode_manifest(KEY, encode_manifest(manifest)) == manifest


@settings(deadline=None, max_examples=150)
@given(manifests, st.data())
def test_a_flipped_bit_anywhere_in_a_manifest_is_found(
    manifest: Manifest, data: st.DataObject
) -> None:
    raw = bytearray(encode_manifest(manifest))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ObjectDamaged, match=KEY):
        decode_manifest(KEY, bytes(raw))


@settings(deadline=None, max_examples=30)
@given(manifests, st.data())
def test_a_cut_off_manifest_is_found(manifest: Manifest, data: st.DataObject) -> None:
    raw = encode_manifest(manifest)
    with pytest.raises(ObjectDamaged):
        decode_manifest(KEY, raw[: data.draw(st.integers(0, len(raw) - 1))])


@given(manifests)
@settings(deadline=None, max_examples=10)
def test_people_can_read_a_manifest(manifest: Manifest) -> None:
    document = json.loads(encode_manifest(manifest))
    assert document["point"]["first_lsn"] == manifest.point.first_lsn
    assert document["point"]["started_at"].endswith("Z")
    assert list(document) == sorted(document)


def signed(manifest: Manifest, change: dict[str, Any]) -> bytes:
    document = json.loads(encode_manifest(manifest)) | change
    document.pop("digest")
    return encode(document | {"digest": module._digest(document)})


@pytest.mark.parametrize(
    "change", [{"format": module.FORMAT + 1}, {"encryption": {"cipher": "aes-256-gcm"}}]
)
@given(manifest=manifests)
@settings(deadline=None, max_examples=3)
def test_what_a_newer_version_wrote_is_refused_with_a_hint(
    change: dict[str, Any], manifest: Manifest
) -> None:
    with pytest.raises(VaultUnusable) as caught:
        decode_manifest(KEY, signed(manifest, change))
    assert "upgrade" in caught.value.hint


@given(manifests)
@settings(deadline=None, max_examples=3)
def test_fields_of_a_newer_version_are_passed_over(manifest: Manifest) -> None:
    assert decode_manifest(KEY, signed(manifest, {"zebra": 1})) == manifest


@pytest.mark.parametrize(
    "change",
    [
        {"point": {}},
        {"point": []},
        {"payload": [{}]},
        {"item": None},
        {"facts": None},
        {"format": "1"},
        {"slot": "yesterday"},
    ],
)
@given(manifest=manifests)
@settings(deadline=None, max_examples=2)
def test_a_manifest_of_wrong_shape_names_object_and_field(
    change: dict[str, Any], manifest: Manifest
) -> None:
    with pytest.raises(ObjectDamaged, match=f"{KEY}.*{next(iter(change))}"):
        decode_manifest(KEY, signed(manifest, change))


@given(manifests.filter(lambda one: any(stream.frames for stream in one.payload.streams)))
@settings(deadline=None, max_examples=20)
def test_an_index_that_contradicts_itself_is_refused(manifest: Manifest) -> None:
    document = json.loads(encode_manifest(manifest))
    stream = next(one for one in document["payload"] if one["frames"])
    stream["volumes"][0]["stored_bytes"] += 1
    with pytest.raises(ObjectDamaged, match="volumes"):
        decode_manifest(KEY, signed(manifest, {"payload": document["payload"]}))


@given(manifests)
@settings(deadline=None, max_examples=5)
def test_the_same_content_in_another_spelling_is_refused(manifest: Manifest) -> None:
    raw = encode_manifest(replace(manifest, label="\u00e9"))
    assert b"\\u00e9" in raw
    document = json.loads(raw)
    for other in (
        raw.replace(b"\\u00e9", b"\\u00E9"),
        raw.rstrip(),
        json.dumps(document, sort_keys=True).encode(),
        json.dumps(document, sort_keys=True, indent=2, ensure_ascii=False).encode() + b"\n",
    ):
        assert json.loads(other) == document
        with pytest.raises(ObjectDamaged, match="digest"):
            decode_manifest(KEY, other)
