"""Where a backup lies that SQL Server writes into the vault: urls, credentials, stripes. Pure."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sqlbak.engines.sqlserver.statements import MAX_DEVICES
from sqlbak.engines.sqlserver.url_delivery import (
    MAX_URL,
    UrlPlace,
    bucket_of,
    credential_for,
    is_whole_set,
    stripes_for,
)
from sqlbak.errors import UsageError
from sqlbak.policy.server_url import (
    MAX_SERVER_URL,
    checked_server_url,
    names_vault,
    server_url_of,
)
from sqlbak.vault.layout import data_prefix, object_key, running_key

GIB = 1 << 30
PARTS = 10_000 * (20 << 20)
names = st.from_regex(r"[a-z0-9][a-z0-9.-]{1,20}[a-z0-9]", fullmatch=True)
hosts = st.from_regex(r"[a-z][a-z0-9]{0,8}(\.[a-z]{2,5}){1,3}(:[1-9][0-9]{1,3})?", fullmatch=True)
paths = st.lists(st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True), max_size=3)


@given(hosts, names, paths)
def test_a_url_names_the_vault_by_path_and_by_host(host: str, bucket: str, path: list[str]) -> None:
    vault = "/".join([f"s3://{bucket}", *path])
    by_path = checked_server_url("/".join([f"s3://{host}", bucket, *path]) + "/")
    by_host = checked_server_url("/".join([f"s3://{bucket}.{host}", *path]))
    assert names_vault(by_path, vault)
    assert names_vault(by_host, vault)
    for other in (f"{vault}/x", f"s3://x{bucket}", "file:///srv/vault"):
        assert not names_vault(by_path, other)
    assert names_vault(checked_server_url(server_url_of(vault, f"https://{host}", None)), vault)


@given(st.text(max_size=200))
def test_no_text_makes_a_url_that_a_statement_could_stumble_over(text: str) -> None:
    try:
        url = checked_server_url(text)
    except ValueError:
        return
    assert url.isascii()
    assert url.isprintable()
    assert not set(url) & set(" '\"[]{}\\%?#;")
    assert len(url) <= MAX_SERVER_URL


def test_the_longest_names_of_a_vault_fit() -> None:
    item, point = "a" * (40 + 1 + 16 + 1 + 8), "20260501T000000Z-aaaaaaaaaa"
    place = UrlPlace("s3://" + "h" * (MAX_SERVER_URL - 5))
    for key in (object_key(item, point, "64of64.bak"), running_key(item, "f" * 16)):
        assert len(place.device(key).name) <= MAX_URL
    with pytest.raises(UsageError, match="has 255 characters"):
        place.device("x" * (MAX_URL - MAX_SERVER_URL))
    assert object_key(item, point, "x").startswith(data_prefix(item, point))


@pytest.mark.parametrize(
    ("size", "wanted", "count"),
    [
        (0, None, 1),
        (150 * GIB, None, 1),
        (150 * GIB + 1, None, 2),
        (GIB, 8, 8),
        (1000 * GIB, 2, 7),
        (64 * 150 * GIB, None, 64),
        (64 * (PARTS * 9 // 10), None, 64),
        (64 * (PARTS * 9 // 10) + 1, None, None),
    ],
)
def test_stripes_follow_the_size(size: int, wanted: int | None, count: int | None) -> None:
    assert stripes_for(size, wanted) == count


@given(st.integers(0, 20 << 40), st.none() | st.integers(1, MAX_DEVICES))
def test_no_url_is_ever_filled_beyond_nine_tenths(size: int, wanted: int | None) -> None:
    count = stripes_for(size, wanted)
    if count is None:
        assert size > MAX_DEVICES * PARTS * 9 // 10
        return
    assert 1 <= count <= MAX_DEVICES
    assert count >= (wanted or 1)
    assert -(-size // count) <= PARTS * 9 // 10


@given(hosts, names, paths, st.integers(0, 3))
def test_the_credential_of_the_longest_beginning_is_taken(
    host: str, bucket: str, path: list[str], cut: int
) -> None:
    url = "/".join([f"s3://{host}", bucket, *path, "x.bak"])
    parts = url.removeprefix("s3://").split("/")
    fits = ["s3://" + "/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    some = fits[: max(1, len(fits) - cut)]
    assert credential_for([*some, f"{some[-1]}y", "s3://other"], url.upper()) == some[-1]
    # A bucket whose name ours begins with is another bucket.
    assume(len(bucket) > 3)
    assert credential_for([f"s3://{host}/{bucket[:-1]}"], url) is None
    assert credential_for([bucket_of(url)], url) == bucket_of(url)


@pytest.mark.parametrize(
    ("names", "whole"),
    [
        (["1of1.trn"], True),
        (["2of2.trn", "1of2.trn"], True),
        (["2of2.trn"], False),
        (["1of2.trn", "2of3.trn"], False),
        (["1of2.trn"], False),
        ([], False),
        (["0of1.trn", "1of1.trn"], False),
        (["base.tar.00000.zst"], False),
    ],
)
def test_a_set_is_whole_when_all_its_objects_are_there(names: list[str], whole: bool) -> None:
    assert is_whole_set(names) is whole
