"""An encrypted vault: nothing can be read without its key, and nothing changed without being found,
whatever somebody does who can write into the store and knows the format."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlbak.engines.port import ShippedPiece
from sqlbak.errors import (
    NotEncrypted,
    ObjectDamaged,
    SecretUnavailable,
    VaultKeyMissing,
    VaultUnusable,
)
from sqlbak.model import ShippedLog
from sqlbak.vault.data_key import DataKey
from sqlbak.vault.documents import canonical, encode
from sqlbak.vault.frames import checksum_of
from sqlbak.vault.key_records import recorded_keys
from sqlbak.vault.layout import data_prefix, point_key, points_prefix
from sqlbak.vault.manifest import Manifest, decode_manifest, encode_manifest
from sqlbak.vault.memory_store import MemoryStore
from sqlbak.vault.payload_index import StreamIndex, pack_lengths, unpack_lengths
from sqlbak.vault.tail import TailSource, put_piece, read_piece
from sqlbak.vault.tail_names import format_tail_name
from sqlbak.vault.vault import Vault, create_vault, open_vault
from sqlbak.vault.vault_key import KEY_BYTES, VaultKey
from sqlbak.vault.vault_keys import KeySettings
from sqlbak.vault.wrapped_key import about_point, about_shipped_log
from tests.vault.making import CONTENT, ITEM, NOW, Job

KEY = VaultKey(bytes(range(KEY_BYTES)))
OTHER_KEY = VaultKey(bytes(range(1, KEY_BYTES + 1)))


def with_key(*keys: VaultKey, plain: bool = False) -> KeySettings:
    """Settings that name the first key as the current one, the others as old ones."""
    readers = [lambda key=key: key for key in keys]
    return KeySettings(readers[0], readers[1:], accepts_plain=plain)


ON = with_key(KEY)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def vault(store: MemoryStore) -> Vault:
    return create_vault(store, redundancy="local", now=NOW, keys=ON)


def taken(store: MemoryStore, keys: KeySettings = ON) -> Manifest:
    """A recovery point of two streams of several frames and volumes; its manifest, unproven."""
    point = Job(store, keys=keys).run()
    (info,) = store.list(f"{points_prefix(ITEM.id)}{point.id}_")
    return decode_manifest(info.key, store.get(info.key))


def content(vault: Vault, point_id: str, stream: str = "base.tar") -> bytes:
    source = vault.point_source(ITEM.id, vault.manifest(ITEM.id, point_id))
    return b"".join(
        source.read_frame(stream, number) for number in range(len(source.frame_starts(stream)))
    )


def payload_keys(store: MemoryStore, point_id: str) -> list[str]:
    return [info.key for info in store.list(data_prefix(ITEM.id, point_id))]


def put_over(store: MemoryStore, key: str, data: bytes) -> None:
    store.put(key, data, if_absent=False)


class Forger:
    """Somebody who can write anything into the store, knows the format, and has no key: rewrites
    the manifest of a point with a digest that is right."""

    def __init__(self, store: MemoryStore, point_id: str) -> None:
        self.store = store
        (info,) = store.list(f"{points_prefix(ITEM.id)}{point_id}_")
        self.key = info.key
        self.document: dict[str, Any] = json.loads(store.get(info.key))

    def write(self) -> None:
        self.document.pop("digest")
        digest = f"sha256:{hashlib.sha256(canonical(self.document)).hexdigest()}"
        data = encode(self.document | {"digest": digest})
        name = decode_manifest(self.key, data).name
        self.store.delete([self.key])
        put_over(self.store, point_key(ITEM.id, name), data)


def test_what_was_encrypted_comes_back_with_the_key(store: MemoryStore, vault: Vault) -> None:
    made = taken(store)
    assert made.wrapped_key is not None
    assert content(vault, made.point.id) == CONTENT
    assert content(vault, made.point.id, "page-map") == CONTENT
    assert content(open_vault(store, ON), made.point.id) == CONTENT


def test_nothing_of_the_content_is_in_the_store(store: MemoryStore, vault: Vault) -> None:
    made = taken(store)
    stored = b"".join(store.get(info.key) for info in store.list(""))
    words = [CONTENT[start : start + 12] for start in range(0, len(CONTENT) - 12, 97)]
    assert not [word for word in words if word in stored]
    assert b"\x28\xb5\x2f\xfd" not in b"".join(  # zstd's magic
        store.get(key) for key in payload_keys(store, made.point.id)
    )
    assert all(key.endswith(".zst.aes") for key in payload_keys(store, made.point.id))
    for secret in (KEY.text(), KEY._secret.hex()):
        assert secret.encode() not in stored


def test_equal_content_is_stored_as_different_bytes_everywhere(store: MemoryStore) -> None:
    """A frame's number, its stream and its point all count. (Two ciphertexts under one key and
    nonce give away both contents, and the key of the tags.)"""
    create_vault(store, redundancy="local", now=NOW, keys=ON)
    encrypted: list[bytes] = []
    for _ in range(2):
        job = Job(store, keys=ON)
        with job.writer:
            for name in ("base.tar", "wal"):
                with job.writer.sink.stream(name) as stream:
                    stream.write(bytes(5000))
            point = job.commit()
        manifest = decode_manifest("", store.get(point_key(ITEM.id, _name_of(store, point.id))))
        for one in manifest.payload.streams:
            volumes = [key for key in payload_keys(store, point.id) if f"/{one.name}." in key]
            rest = b"".join(store.get(key) for key in volumes)
            for length in unpack_lengths(one.lengths):
                frame, rest = rest[:length], rest[length:]
                encrypted.append(frame[:-16])  # tags differ in any case
    assert len(encrypted) == len(set(encrypted)) == 20


def test_a_frame_is_bound_to_its_place_even_under_one_key() -> None:
    key = DataKey(bytes(KEY_BYTES))
    stored = key.stream_cipher("a", "wal").encrypt(3, b"frame")
    assert key.stream_cipher("a", "wal").decrypt(3, stored) == b"frame"
    for point, stream, number in (("b", "wal", 3), ("a", "base.tar", 3), ("a", "wal", 2)):
        with pytest.raises(ValueError, match="key does not fit"):
            key.stream_cipher(point, stream).decrypt(number, stored)


def _name_of(store: MemoryStore, point_id: str) -> str:
    prefix = points_prefix(ITEM.id)
    (info,) = store.list(f"{prefix}{point_id}_")
    return info.key.removeprefix(prefix)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_frame_that_was_changed_is_found_even_where_all_checksums_were_mended(
    data: st.DataObject,
) -> None:
    store = MemoryStore()
    vault = create_vault(store, redundancy="local", now=NOW, keys=ON)
    made = taken(store)
    key = data.draw(st.sampled_from(payload_keys(store, made.point.id)))
    stored = bytearray(store.get(key))
    place = data.draw(st.integers(0, len(stored) - 1))
    stored[place] ^= data.draw(st.integers(1, 255))
    put_over(store, key, bytes(stored))
    mend_checksums(store, made.point.id)
    # Without the seal every checksum is right; what was changed must still not be decoded.
    source = vault.point_source(
        ITEM.id, decode_manifest("", store.get(point_key(ITEM.id, _name_of(store, made.point.id))))
    )
    with pytest.raises(ObjectDamaged, match="does not decode"):
        for stream in source.streams():
            for number in range(len(source.frame_starts(stream))):
                source.read_frame(stream, number)
    with pytest.raises(ObjectDamaged, match="changed by somebody"):
        vault.manifest(ITEM.id, made.point.id)


def mend_checksums(store: MemoryStore, point_id: str) -> None:
    """Make the manifest say that what lies there now is right."""
    forger = Forger(store, point_id)
    for one in forger.document["payload"]:
        keys = [key for key in payload_keys(store, point_id) if f"/{one['name']}." in key]
        whole = b"".join(store.get(key) for key in sorted(keys))
        checksums = bytearray()
        start = 0
        for length in unpack_lengths(base64.b64decode(one["frame_lengths"])):
            checksums += checksum_of(whole[start : start + length])
            start += length
        one["frame_checksums"] = base64.b64encode(bytes(checksums)).decode()
        mend_digest(one)
    forger.write()


def mend_digest(stream: dict[str, Any]) -> None:
    checksums = base64.b64decode(stream["frame_checksums"])
    stream["digest"] = f"sha256:{hashlib.sha256(checksums).hexdigest()}"


def exchange(store: MemoryStore, one: str, other: str) -> None:
    contents = store.get(one), store.get(other)
    put_over(store, one, contents[1])
    put_over(store, other, contents[0])


def unproven(store: MemoryStore, vault: Vault, point_id: str) -> None:
    """Read a stream as if nobody looked at the seal."""
    manifest = decode_manifest("", store.get(point_key(ITEM.id, _name_of(store, point_id))))
    source = vault.point_source(ITEM.id, manifest)
    for stream in source.streams():
        for number in range(len(source.frame_starts(stream))):
            source.read_frame(stream, number)


def test_volumes_of_two_streams_cannot_be_exchanged(store: MemoryStore, vault: Vault) -> None:
    job = Job(store, keys=ON)
    with job.writer:
        for name in ("base.tar", "wal"):
            with job.writer.sink.stream(name) as stream:
                stream.write(Random(1).randbytes(1000))  # one frame each, of one length
        point = job.commit()
    exchange(store, *payload_keys(store, point.id))
    mend_checksums(store, point.id)
    with pytest.raises(ObjectDamaged, match="does not decode"):
        unproven(store, vault, point.id)


def test_frames_cannot_be_reordered(store: MemoryStore, vault: Vault) -> None:
    job = Job(store, keys=ON)
    with job.writer:
        with job.writer.sink.stream("wal") as stream:
            stream.write(Random(1).randbytes(2000))  # two frames, each a volume of its own
        point = job.commit()
    exchange(store, *payload_keys(store, point.id))
    mend_checksums(store, point.id)
    with pytest.raises(ObjectDamaged, match="does not decode"):
        unproven(store, vault, point.id)


def test_payload_of_another_point_does_not_decrypt(store: MemoryStore, vault: Vault) -> None:
    one, other = taken(store), taken(store)
    for first, second in zip(
        payload_keys(store, one.point.id), payload_keys(store, other.point.id), strict=True
    ):
        exchange(store, first, second)
    # Even with the key of the point that it came from.
    forger, donor = Forger(store, one.point.id), Forger(store, other.point.id)
    forger.document["payload"] = donor.document["payload"]
    forger.write()
    with pytest.raises(ObjectDamaged, match="does not decode"):
        unproven(store, vault, one.point.id)
    forger = Forger(store, one.point.id)
    forger.document["encryption"] = donor.document["encryption"]
    forger.write()
    with pytest.raises(ObjectDamaged, match="another object's"):
        unproven(store, vault, one.point.id)


def _cut_last_frame(document: dict[str, Any]) -> None:
    stream = next(one for one in document["payload"] if one["name"] == "base.tar")
    index = StreamIndex(
        name="base.tar",
        raw_bytes=stream["raw_bytes"],
        frame_bytes=stream["frame_bytes"],
        volumes=(),
        lengths=base64.b64decode(stream["frame_lengths"]),
        checksums=base64.b64decode(stream["frame_checksums"]),
    )
    frames = index.frames - 1
    lengths = unpack_lengths(index.lengths)
    stream["frames"] = frames
    stream["raw_bytes"] = frames * index.frame_bytes
    stream["frame_lengths"] = base64.b64encode(pack_lengths(lengths[:frames])).decode()
    stream["frame_checksums"] = base64.b64encode(index.checksums[: frames * 16]).decode()
    stream["stored_bytes"] -= lengths[frames]
    last = stream["volumes"][-1]
    if last["frames"] == 1:
        stream["volumes"].pop()
    else:
        last["frames"] -= 1
        last["stored_bytes"] -= lengths[frames]
    mend_digest(stream)


def _drop_stream(document: dict[str, Any]) -> None:
    document["payload"].pop()


def _later_end(document: dict[str, Any]) -> None:
    document["point"]["last_lsn"] += 1


def _other_facts(document: dict[str, Any]) -> None:
    document["facts"]["version"] = "17.0"


def _other_name(document: dict[str, Any]) -> None:
    document["item"]["instance"] = "invoices"


def _other_slot(document: dict[str, Any]) -> None:
    document["slot"] = None


def _no_seal(document: dict[str, Any]) -> None:
    del document["encryption"]["seal"]


def _wrong_seal(document: dict[str, Any]) -> None:
    document["encryption"]["seal"] = "\ud800"


def _number_as_seal(document: dict[str, Any]) -> None:
    document["encryption"]["seal"] = 7


@pytest.mark.parametrize(
    "forge",
    [
        _cut_last_frame,
        _drop_stream,
        _later_end,
        _other_facts,
        _other_name,
        _other_slot,
        _no_seal,
        _wrong_seal,
        _number_as_seal,
    ],
)
def test_a_manifest_that_was_changed_is_found_though_its_digest_is_right(
    store: MemoryStore, vault: Vault, forge: Callable[[dict[str, Any]], None]
) -> None:
    made = taken(store)
    forger = Forger(store, made.point.id)
    forge(forger.document)
    forger.write()
    with pytest.raises(ObjectDamaged, match="changed by somebody who has not the vault's key"):
        vault.manifest(ITEM.id, made.point.id)


def test_a_forged_point_that_is_not_encrypted_is_refused(store: MemoryStore, vault: Vault) -> None:
    plain = MemoryStore()
    create_vault(plain, redundancy="local", now=NOW)
    forged = taken(plain, KeySettings()).point
    for info in plain.list(f"items/{ITEM.id}/"):
        put_over(store, info.key, plain.get(info.key))
    with pytest.raises(NotEncrypted, match="could have put it there") as caught:
        vault.manifest(ITEM.id, forged.id)
    assert "plain_points: allowed" in caught.value.hint
    assert caught.value.exit_code == 3


def test_points_from_before_encryption_are_read_where_they_are_allowed(store: MemoryStore) -> None:
    create_vault(store, redundancy="local", now=NOW)
    old = taken(store, KeySettings())
    mixed = open_vault(store, with_key(KEY, plain=True))
    new = taken(store)
    assert content(mixed, old.point.id) == CONTENT
    assert content(mixed, new.point.id) == CONTENT


def test_without_the_key_it_is_listed_but_never_read(store: MemoryStore, vault: Vault) -> None:
    made = taken(store)
    for settings_ in (KeySettings(), KeySettings(None, [lambda: OTHER_KEY])):
        blind = open_vault(store, settings_)
        assert [point.id for point in blind.points(ITEM.id)] == [made.point.id]
        with pytest.raises(VaultKeyMissing, match=KEY.id) as caught:
            blind.point_source(ITEM.id, made)
        assert "old_keys" in caught.value.hint
        assert caught.value.exit_code == 2


def test_after_a_rotation_old_points_stay_readable(store: MemoryStore, vault: Vault) -> None:
    before = taken(store)
    rotated = open_vault(store, with_key(OTHER_KEY, KEY))
    after = taken(store, with_key(OTHER_KEY, KEY))
    assert content(rotated, before.point.id) == content(rotated, after.point.id) == CONTENT
    assert [one.id for one in recorded_keys(store)] == [KEY.id, OTHER_KEY.id]
    with pytest.raises(VaultKeyMissing, match=OTHER_KEY.id):
        vault.manifest(ITEM.id, after.point.id)
    with pytest.raises(VaultKeyMissing, match=KEY.id):
        open_vault(store, with_key(OTHER_KEY)).manifest(ITEM.id, before.point.id)


def test_an_encrypted_vault_takes_nothing_readable_from_a_policy_without_its_key(
    store: MemoryStore, vault: Vault
) -> None:
    taken(store)
    before = {info.key for info in store.list("")}
    with pytest.raises(VaultKeyMissing, match="nothing is written") as caught:
        Job(store).run()
    assert "encryption" in caught.value.hint
    assert {info.key for info in store.list("")} == before


def test_the_key_is_remembered_before_the_first_byte_is_written(store: MemoryStore) -> None:
    create_vault(store, redundancy="local", now=NOW, keys=ON)
    job = Job(store, keys=ON)
    assert [one.id for one in recorded_keys(store)] == [KEY.id]
    assert recorded_keys(store)[0].first_used_at <= datetime.now(UTC)
    job.writer.sink.close()


def test_a_key_that_cannot_be_read_stops_a_backup_before_it_begins(store: MemoryStore) -> None:
    def unreadable() -> VaultKey:
        raise VaultKeyMissing("the secret file:/run/secrets/vault.key cannot be read")

    create_vault(store, redundancy="local", now=NOW)
    with pytest.raises(VaultKeyMissing):
        Job(store, keys=KeySettings(unreadable))
    assert [info.key for info in store.list("")] == ["vault.json"]


class Changing:
    """A reference whose file is replaced, or deleted, while a scheduler runs."""

    def __init__(self, key: VaultKey | None) -> None:
        self.key = key

    def __call__(self) -> VaultKey:
        if self.key is None:
            raise SecretUnavailable("the secret file:/run/secrets/vault.key cannot be read")
        return self.key


def test_a_key_that_is_kept_nowhere_any_more_encrypts_nothing(store: MemoryStore) -> None:
    """What is encrypted with the key that a scheduler remembers is lost when the scheduler ends."""
    reference = Changing(KEY)
    vault = create_vault(store, redundancy="local", now=NOW, keys=KeySettings(reference))
    assert vault.keys.new("a") is not None
    reference.key = None
    with pytest.raises(SecretUnavailable):
        vault.keys.new("a")
    reference.key = OTHER_KEY
    made = vault.keys.new("a")
    assert made is not None
    assert made.vault_key.id == made.wrapped.key_id == OTHER_KEY.id
    assert {one.id for one in recorded_keys(store)} == {KEY.id, OTHER_KEY.id}


def test_an_old_key_that_cannot_be_read_is_missed_only_where_it_is_needed(
    store: MemoryStore, vault: Vault
) -> None:
    before = taken(store)
    gone = Changing(None)
    rotated = open_vault(store, KeySettings(lambda: OTHER_KEY, [gone]))
    after = taken(store, with_key(OTHER_KEY))
    assert content(rotated, after.point.id) == CONTENT
    assert rotated.keys.new("a") is not None
    assert [key.id for key in rotated.keys.held()] == [OTHER_KEY.id]
    assert rotated.keys.missing().ids == (KEY.id,)
    with pytest.raises(SecretUnavailable):
        rotated.manifest(ITEM.id, before.point.id)
    gone.key = KEY
    assert content(rotated, before.point.id) == CONTENT


def test_a_manifest_is_sealed_with_its_own_key_or_not_at_all(store: MemoryStore) -> None:
    create_vault(store, redundancy="local", now=NOW, keys=ON)
    made = taken(store)
    with pytest.raises(ValueError, match="sealed"):
        encode_manifest(made)
    with pytest.raises(ValueError, match="sealed"):
        encode_manifest(replace(made, wrapped_key=None), DataKey.new())


LOG = Random(7).randbytes(3000)
RUN = "0123456789ab"


def shipped(vault: Vault, data: bytes = LOG) -> ShippedLog:
    """A piece of shipped log."""
    return put_piece(
        vault.store,
        ITEM.id,
        ShippedPiece(100, 100 + len(data), data, NOW, NOW, {"log_tail": None}),
        lineage="1",
        run=RUN,
        anchor_id="20240501T120000Z-abcdefghij",
        facts={"wal_segment_size": 1 << 24},
        key=vault.keys.new(about_shipped_log(ITEM.id)),
    )


class TestShippedLog:
    @pytest.mark.parametrize("data", [LOG, b""], ids=["log", "nothing"])
    def test_it_comes_back_with_the_key_alone(
        self, store: MemoryStore, vault: Vault, data: bytes
    ) -> None:
        piece = shipped(vault, data)
        assert read_piece(store, ITEM.id, piece, vault.keys).data == data
        with pytest.raises(VaultKeyMissing, match=KEY.id):
            read_piece(store, ITEM.id, piece, open_vault(store).keys)

    def test_neither_the_object_nor_its_name_tells_what_it_holds(
        self, store: MemoryStore, vault: Vault
    ) -> None:
        piece = shipped(vault)
        (key,) = (info.key for info in store.list(f"items/{ITEM.id}/tail/"))
        assert LOG[:20] not in store.get(key)
        guessed = {checksum_of(LOG).hex(), OTHER_KEY.digest_of_log(LOG)}
        assert piece.raw_checksum not in guessed
        assert piece.raw_checksum == KEY.digest_of_log(LOG)

    def test_equal_log_is_stored_as_different_bytes(self, store: MemoryStore, vault: Vault) -> None:
        key = vault.keys.new(about_shipped_log(ITEM.id))
        assert key is not None
        made = [key.data_key.encrypt_piece(LOG, bytes([n]) * 12, b"") for n in range(2)]
        assert made[0][:-16] != made[1][:-16]
        one, other = shipped(vault), shipped(vault)
        assert one.object_checksum != other.object_checksum

    @settings(max_examples=60, deadline=None)
    @given(data=st.data())
    def test_a_change_is_found_even_where_all_checksums_were_mended(
        self, data: st.DataObject
    ) -> None:
        store = MemoryStore()
        vault = create_vault(store, redundancy="local", now=NOW, keys=ON)
        piece = shipped(vault)
        (key,) = (info.key for info in store.list(f"items/{ITEM.id}/tail/"))
        stored = bytearray(store.get(key))
        place = data.draw(st.integers(0, len(stored) - 1))
        stored[place] ^= data.draw(st.integers(1, 255))
        forged = replace(piece, object_checksum=xxhash.xxh3_64_hexdigest(bytes(stored)), name="")
        forged = replace(forged, name=format_tail_name(forged))
        store.put(f"items/{ITEM.id}/tail/n1/{forged.name}", bytes(stored))
        with pytest.raises((ObjectDamaged, VaultKeyMissing, VaultUnusable, NotEncrypted)):
            read_piece(store, ITEM.id, forged, vault.keys)

    def test_a_forged_piece_that_is_not_encrypted_is_refused(
        self, store: MemoryStore, vault: Vault
    ) -> None:
        forged = shipped(create_vault(MemoryStore(), redundancy="local", now=NOW))
        plain = MemoryStore()
        shipped(create_vault(plain, redundancy="local", now=NOW))
        for info in plain.list(f"items/{ITEM.id}/"):
            store.put(info.key, plain.get(info.key))
        with pytest.raises(NotEncrypted):
            read_piece(store, ITEM.id, forged, vault.keys)

    def test_a_piece_of_another_item_is_refused(self, store: MemoryStore, vault: Vault) -> None:
        piece = shipped(vault)
        (key,) = (info.key for info in store.list(f"items/{ITEM.id}/tail/"))
        store.put(key.replace(ITEM.id, "other-0123456789abcdef"), store.get(key))
        with pytest.raises(ObjectDamaged, match="item"):
            read_piece(store, "other-0123456789abcdef", piece, vault.keys)

    def test_what_was_sealed_meanwhile_is_known_again_by_its_keyed_digest(
        self, store: MemoryStore, vault: Vault
    ) -> None:
        piece = shipped(vault)
        store.delete([info.key for info in store.list(f"items/{ITEM.id}/tail/")])
        keys = open_vault(store, with_key(OTHER_KEY, KEY)).keys

        def source(sealed: bytes) -> TailSource:
            return TailSource(
                store, ITEM.id, [piece], keys, first_lsn=100, sealed=lambda *_: sealed
            )

        assert source(LOG).read_frame("wal", 0) == LOG
        with pytest.raises(ObjectDamaged, match="same bytes"):
            source(LOG[::-1]).read_frame("wal", 0)


class TestVaultKeys:
    def test_the_text_of_a_key_is_base64_of_32_bytes(self) -> None:
        key = VaultKey.new()
        assert VaultKey.parse(f" {key.text()}\n").id == key.id
        assert len(base64.b64decode(key.text())) == KEY_BYTES
        assert VaultKey.new().id != key.id

    @given(st.text())
    def test_what_is_no_key_is_refused_without_being_repeated(self, text: str) -> None:
        try:
            VaultKey.parse(text)
        except ValueError as error:
            assert len(text) < 5 or text not in str(error)
            assert error.__cause__ is None

    def test_neither_key_shows_its_secret(self) -> None:
        data_key = DataKey.new()
        shown = repr(KEY) + repr(data_key) + str(KEY) + str(data_key)
        assert KEY.text() not in shown
        assert KEY._secret.hex() not in shown
        assert data_key.secret.hex() not in shown
        assert repr(data_key.secret) not in shown

    def test_a_data_key_unwraps_only_for_what_it_was_wrapped_for(self) -> None:
        secret = DataKey.new().secret
        wrapped = KEY.wrap(secret, about_point("orders", "a"))
        assert KEY.unwrap(wrapped, about_point("orders", "a")) == secret
        for key, stored, about in [
            (OTHER_KEY, wrapped, about_point("orders", "a")),
            (KEY, wrapped, about_point("orders", "b")),
            (KEY, wrapped, about_point("invoices", "a")),
            (KEY, wrapped[:-1], about_point("orders", "a")),
            (KEY, b"", about_point("orders", "a")),
        ]:
            with pytest.raises(ValueError, match="not wrapped by this key"):
                key.unwrap(stored, about)

    def test_the_id_of_a_key_never_changes(self) -> None:
        """It stands in vaults."""
        assert KEY.id == "4133c4813e7db25e"
