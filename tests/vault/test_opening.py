"""From a vault's url to its store."""

from __future__ import annotations

from pathlib import Path

import pytest

from sqlbak.errors import VaultUnusable
from sqlbak.vault.opening import S3Options, open_store

KEYS = S3Options(endpoint="https://s3.test", access_key="AK", secret_key="not-to-be-shown")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://acme-backups/prod", "s3://acme-backups/prod"),
        ("s3://acme-backups", "s3://acme-backups"),
        ("s3://acme-backups/a/b/", "s3://acme-backups/a/b"),
        ("file:///srv/my%20vault", "file:///srv/my%20vault"),
        ("file://localhost/srv/vault", "file:///srv/vault"),
        ("/srv/my vault", "file:///srv/my%20vault"),
    ],
)
def test_a_store_tells_where_it_is(url: str, shown: str) -> None:
    store = open_store(url, KEYS)
    assert store.url == shown
    store.close()


def test_a_relative_path_begins_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    open_store("vault").put("k", b"x")
    assert (tmp_path / "vault/k").read_bytes() == b"x"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://host/x",
        "s3://",
        "s3:///prefix",
        "s3://bucket/../x",
        "s3://bucket?endpoint=x",
        "file://host/x",
        "file:relative",
    ],
)
def test_other_urls_are_refused_with_an_example(url: str) -> None:
    with pytest.raises(VaultUnusable) as caught:
        open_store(url, KEYS)
    assert "://" in caught.value.hint


def test_keys_in_the_url_are_refused_and_not_repeated() -> None:
    with pytest.raises(VaultUnusable) as caught:
        open_store("s3://AK:hunter2@bucket/x")
    assert "hunter2" not in str(caught.value) + caught.value.hint


def test_half_a_pair_of_keys_is_refused() -> None:
    with pytest.raises(VaultUnusable, match="belong together"):
        open_store("s3://bucket", S3Options(access_key="AK"))


def test_an_endpoint_that_is_no_url_is_refused() -> None:
    with pytest.raises(VaultUnusable, match="cannot be used"):
        open_store("s3://bucket", S3Options(endpoint="s3.example.com"))


def test_options_never_show_their_secrets() -> None:
    options = S3Options(access_key="AK", secret_key="hunter2", session_token="hunter3")
    assert "hunter" not in repr(options)
    assert "AK" in repr(options)
