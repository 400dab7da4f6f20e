"""What a store really does, found out by doing it. Servers that speak the S3 API differ: some
ignore the conditions of conditional writes without a word, and a vault on such a server would lose
recovery points silently.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from threading import Barrier

from sqlbak.errors import (
    FeatureUnsupported,
    ObjectDamaged,
    ObjectKeyInvalid,
    ObjectNotFound,
    PreconditionFailed,
    StoreThrottled,
    UploadGone,
    VaultUnusable,
)
from sqlbak.vault.retry import RetryingStore
from sqlbak.vault.s3_probe import honours_delete_if_match, refuses_bad_checksum
from sqlbak.vault.s3_store import S3Store
from sqlbak.vault.store import ObjectStore

__all__ = ["REQUIRED", "Ability", "StoreAbilities", "missing", "probe", "require", "warnings"]

_RACERS = 8
_ROUNDS = 10
_PART_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Ability:
    """Whether the store does something (None: it cannot be asked of such a store), and what was
    seen."""

    holds: bool | None
    seen: str


@dataclass(frozen=True, slots=True)
class StoreAbilities:
    """What a store does."""

    create_if_absent: Ability
    create_if_absent_under_race: Ability
    multipart_if_absent: Ability
    replace_if_match: Ability
    delete_if_match: Ability
    ranged_read: Ability
    ordered_listing: Ability
    refuses_bad_checksum: Ability

    def __iter__(self) -> Iterator[tuple[str, Ability]]:
        """Names and abilities, in the order above."""
        return iter([(one.name, getattr(self, one.name)) for one in fields(self)])


REQUIRED = {
    "create_if_absent": "a recovery point could be overwritten by another one",
    "replace_if_match": "two schedulers could hold the same lease",
    "ranged_read": "a restore could read the wrong bytes",
    "ordered_listing": "a restore could overlook recovery points",
}
"""Abilities without which a vault is not safe, and why. Only what shows at every try stands here:
a vault must not be refused on one day and made on the next."""


_NO_RACE = Ability(False, "not tried: a second create was not even refused without a race")


def probe(store: ObjectStore) -> StoreAbilities:
    """Try everything below a prefix of its own, ``probe/<random>/``, and remove it again.

    Raises AccessDenied, StoreUnreachable and StoreFull, and VaultUnusable when the place itself is
    not there; whatever else goes wrong is what was seen.
    """
    plain = store.undecorated if isinstance(store, RetryingStore) else store
    prefix = f"probe/{uuid.uuid4().hex}/"
    store.put(prefix + "place", b"", if_absent=False)
    try:
        create = _tried(lambda: _create(plain, prefix + "create"))
        return StoreAbilities(
            create_if_absent=create,
            # Some servers break when they are raced, and one that overwrites has lost already.
            create_if_absent_under_race=(
                _tried(lambda: _race(plain, prefix + "race")) if create.holds else _NO_RACE
            ),
            multipart_if_absent=_tried(lambda: _multipart(plain, prefix + "parts")),
            replace_if_match=_tried(lambda: _replace(plain, prefix + "replace")),
            delete_if_match=_tried(lambda: _delete(plain, prefix + "delete")),
            ranged_read=_tried(lambda: _ranges(plain, prefix + "ranges")),
            ordered_listing=_tried(lambda: _order(plain, prefix + "order/")),
            refuses_bad_checksum=_tried(lambda: _bad_checksum(plain, prefix + "checksum")),
        )
    finally:
        store.delete([info.key for info in store.list(prefix)])
        store.sweep_unfinished(prefix, older_than=datetime.now(UTC) + timedelta(days=1))


def missing(abilities: StoreAbilities) -> dict[str, str]:
    """The required abilities that the store lacks, each with what was seen."""
    return {name: one.seen for name, one in abilities if name in REQUIRED and not one.holds}


def warnings(abilities: StoreAbilities) -> tuple[str, ...]:
    """What a vault in the store is safe only with care for, one sentence each."""
    race = abilities.create_if_absent_under_race
    if race.holds is not False or not abilities.create_if_absent.holds:
        return ()
    return (
        f"safe for one scheduler only: of writers at the very same moment, more than one may win "
        f"({race.seen}), so two schedulers could hold the same lease",
    )


def require(abilities: StoreAbilities, url: str) -> None:
    """Raise FeatureUnsupported if the store at ``url`` lacks a required ability."""
    if lacking := missing(abilities):
        listed = "; ".join(
            f"{name.replace('_', ' ')} ({seen}), so {REQUIRED[name]}"
            for name, seen in lacking.items()
        )
        raise FeatureUnsupported(
            f"{url} cannot hold a vault. It lacks: {listed}",
            hint="use a store with conditional writes, such as Amazon S3, Ceph 20 or a directory",
        )


class _Unlike(Exception):
    """The store did something else than it should."""


def _tried(attempt: Callable[[], Ability]) -> Ability:
    try:
        return attempt()
    except _Unlike as unlike:
        return Ability(False, str(unlike))
    except (
        ObjectDamaged,
        ObjectKeyInvalid,
        ObjectNotFound,
        PreconditionFailed,
        UploadGone,
        VaultUnusable,
    ) as error:
        return Ability(False, f"the store failed: {error}")


@contextmanager
def _refused(what: str) -> Iterator[None]:
    try:
        yield
    except PreconditionFailed:
        return
    raise _Unlike(what)


def _create(store: ObjectStore, key: str) -> Ability:
    store.put(key, b"first")
    with _refused("a second create of the same key was accepted"):
        store.put(key, b"second")
    if store.get(key) != b"first":
        raise _Unlike("a create that was refused has overwritten the object")
    return Ability(True, "a second create of the same key was refused")


def _race(store: ObjectStore, key: str) -> Ability:
    barrier = Barrier(_RACERS)

    def enter(number: int, name: str) -> bool:
        barrier.wait()
        try:
            store.put(name, b"%d" % number)
        except (PreconditionFailed, StoreThrottled):  # or "409, try again"
            return False
        return True

    with ThreadPoolExecutor(_RACERS) as racers:
        for turn in range(_ROUNDS):
            name = f"{key}-{turn}"
            entered = [racers.submit(enter, number, name) for number in range(_RACERS)]
            won = [number for number, one in enumerate(entered) if one.result()]
            if len(won) != 1:
                raise _Unlike(f"{len(won)} of {_RACERS} writers at once were told that they won")
            if store.get(name) != b"%d" % won[0]:
                raise _Unlike("the object holds the bytes of a writer that was refused")
    return Ability(True, f"one of {_RACERS} writers won in each of {_ROUNDS} rounds")


def _multipart(store: ObjectStore, key: str) -> Ability:
    if not isinstance(store, S3Store):
        return Ability(None, "the store has no multipart uploads")
    in_parts = store.in_parts_of(_PART_BYTES)
    with in_parts.writer(key) as first:
        first.write(b"1" * _PART_BYTES)
        first.commit()
    with _refused("a second upload of the same key was accepted"), in_parts.writer(key) as second:
        second.write(b"2" * _PART_BYTES)
        second.commit()
    if store.read(key, 0, 1) != b"1":
        raise _Unlike("an upload that was refused has overwritten the object")
    return Ability(True, "a second upload of the same key was refused")


def _replace(store: ObjectStore, key: str) -> Ability:
    first = store.put(key, b"first").etag
    second = store.replace(key, b"second", if_match=first).etag
    with _refused("a version that was gone already was replaced"):
        store.replace(key, b"third", if_match=first)
    if store.get(key) != b"second":
        raise _Unlike("a replacement that was refused has overwritten the object")
    store.delete([key])
    with _refused("an object that was gone was replaced"):
        store.replace(key, b"third", if_match=second)
    return Ability(True, "only the version named was replaced")


def _delete(store: ObjectStore, key: str) -> Ability:
    first = store.put(key, b"first").etag
    if isinstance(store, S3Store) and not honours_delete_if_match(store.bucket, key):
        raise _Unlike("the server deleted another version than the one named")
    second = store.replace(key, b"second", if_match=first).etag
    with _refused("another version than the one named was deleted"):
        store.delete_if(key, if_match=first)
    store.delete_if(key, if_match=second)
    return Ability(True, "only the version named was deleted")


def _ranges(store: ObjectStore, key: str) -> Ability:
    store.put(key, b"0123456789")
    for start, length, right in ((0, 1, b"0"), (3, 4, b"3456"), (8, 9, b"89"), (10, 1, b"")):
        if (found := store.read(key, start, length)) != right:
            raise _Unlike(f"{length} bytes from {start} of 0123456789 were {found!r}")
    return Ability(True, "ranges in the middle, over the end and beyond it were right")


def _order(store: ObjectStore, prefix: str) -> Ability:
    keys = [prefix + name for name in ("Z", "a-b", "a/b", "a0", "aB", "ab/c")]
    for key in reversed(keys):
        store.put(key, b"")
    found = [info.key for info in store.list(prefix)]
    if found != keys:
        raise _Unlike("objects were listed in another order than that of their bytes")
    return Ability(True, "objects were listed by the bytes of their keys")


def _bad_checksum(store: ObjectStore, key: str) -> Ability:
    if not isinstance(store, S3Store):
        return Ability(None, "nothing is sent over a network")
    if refuses_bad_checksum(store.bucket, key):
        return Ability(True, "bytes with a wrong checksum were refused")
    return Ability(False, "bytes with a wrong checksum were stored")
