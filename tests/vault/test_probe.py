"""What `vault check` finds out about a store."""

from __future__ import annotations

from pathlib import Path

import pytest

from sqlbak.errors import AccessDenied, FeatureUnsupported, VaultUnusable
from sqlbak.vault.file_store import FileStore
from sqlbak.vault.memory_store import MemoryStore
from sqlbak.vault.probe import REQUIRED, missing, probe, require, warnings
from sqlbak.vault.retry import Retry, RetryingStore
from sqlbak.vault.s3_client import S3Bucket
from sqlbak.vault.s3_store import S3Store
from sqlbak.vault.store import ObjectInfo, ObjectStore
from tests.vault.conftest import fresh_bucket
from tests.vault.s3_servers import S3Server


def verdicts(store: ObjectStore) -> dict[str, bool | None]:
    return {name: ability.holds for name, ability in probe(store)}


def leftovers(bucket: S3Bucket) -> list[object]:
    objects = bucket.client.list_objects_v2(Bucket=bucket.name, Prefix=bucket.prefix)
    uploads = bucket.client.list_multipart_uploads(Bucket=bucket.name, Prefix=bucket.prefix)
    return [*objects.get("Contents", []), *uploads.get("Uploads", [])]


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_our_own_stores_can_do_everything(kind: str, tmp_path: Path) -> None:
    store = MemoryStore() if kind == "memory" else FileStore(tmp_path / "vault")
    abilities = probe(RetryingStore(store, Retry()))
    assert missing(abilities) == {}
    require(abilities, store.url)
    assert abilities.delete_if_match.holds
    assert abilities.refuses_bad_checksum.holds is None
    assert abilities.multipart_if_absent.holds is None
    assert list(store.list("")) == []


def test_a_file_store_looks_unused_after_the_probe(tmp_path: Path) -> None:
    probe(FileStore(tmp_path / "vault"))
    assert [path.name for path in (tmp_path / "vault").iterdir()] == [".sqlbak"]
    assert list((tmp_path / "vault/.sqlbak/unfinished").iterdir()) == []


@pytest.mark.s3
def test_ministack_can_do_everything(ministack: S3Server) -> None:
    bucket = fresh_bucket(ministack)
    abilities = probe(S3Store(bucket))
    assert {name: ability.seen for name, ability in abilities if not ability.holds} == {}
    assert leftovers(bucket) == []


@pytest.mark.s3
def test_ceph_stores_bytes_with_a_wrong_checksum_and_can_do_the_rest(ceph: S3Server) -> None:
    bucket = fresh_bucket(ceph)
    found = verdicts(S3Store(bucket))
    assert found.pop("refuses_bad_checksum") is False
    assert set(found.values()) == {True}
    assert leftovers(bucket) == []


@pytest.mark.s3
def test_moto_takes_bytes_with_a_wrong_checksum(moto: S3Server) -> None:
    bucket = fresh_bucket(moto)
    found = verdicts(S3Store(bucket))
    found.pop("create_if_absent_under_race")  # moto lets two writers win now and then
    assert found.pop("refuses_bad_checksum") is False
    assert set(found.values()) == {True}
    assert leftovers(bucket) == []


@pytest.mark.s3
def test_rclone_is_refused_because_it_ignores_conditions(rclone: S3Server) -> None:
    store = S3Store(fresh_bucket(rclone))
    abilities = probe(store)
    lacking = missing(abilities)
    assert {"create_if_absent", "replace_if_match"} <= set(lacking)
    assert abilities.create_if_absent_under_race.holds is False
    assert "ordered_listing" not in lacking
    assert abilities.multipart_if_absent.holds is False
    assert abilities.delete_if_match.holds is False
    with pytest.raises(FeatureUnsupported) as caught:
        require(abilities, store.url)
    assert "a second create of the same key was accepted" in str(caught.value)
    assert "two schedulers could hold the same lease" in str(caught.value)
    assert list(store.list("")) == []


class Forgetful(MemoryStore):
    """Overwrites whatever it was told not to."""

    def put(self, key: str, data: bytes, *, if_absent: bool = True) -> ObjectInfo:
        return super().put(key, data, if_absent=False)


class Backwards(MemoryStore):
    """Lists in the wrong order."""

    def list(self, prefix: str):  # type: ignore[no-untyped-def]
        return reversed([*super().list(prefix)])


class Closed(MemoryStore):
    """Lets nobody in."""

    def put(self, key: str, data: bytes, *, if_absent: bool = True) -> ObjectInfo:
        raise AccessDenied("no")


def test_a_store_that_overwrites_is_found_out() -> None:
    abilities = probe(Forgetful())
    assert set(missing(abilities)) == {"create_if_absent"}
    assert abilities.create_if_absent_under_race.seen.startswith("not tried")
    assert warnings(abilities) == ()  # it is refused anyway


class Hasty(MemoryStore):
    """Keeps its conditions, but not among writers of the same moment."""

    def put(self, key: str, data: bytes, *, if_absent: bool = True) -> ObjectInfo:
        return super().put(key, data, if_absent=if_absent and "/race" not in key)


def test_a_store_that_loses_races_holds_a_vault_for_one_scheduler() -> None:
    abilities = probe(Hasty())
    require(abilities, "memory")
    (caution,) = warnings(abilities)
    assert caution.startswith("safe for one scheduler only")


def test_a_store_that_lists_in_another_order_is_found_out() -> None:
    assert set(missing(probe(Backwards()))) == {"ordered_listing"}


def test_no_access_is_an_error_and_not_a_missing_ability() -> None:
    with pytest.raises(AccessDenied):
        probe(Closed())


def test_a_place_that_is_not_there_is_an_error_and_not_a_missing_ability(tmp_path: Path) -> None:
    with pytest.raises(VaultUnusable, match="not-mounted"):
        probe(FileStore(tmp_path / "not-mounted" / "vault"))
    assert list(tmp_path.iterdir()) == []


def test_every_required_ability_is_probed() -> None:
    assert set(REQUIRED) <= set(verdicts(MemoryStore()))
