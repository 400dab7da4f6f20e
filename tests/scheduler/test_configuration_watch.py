"""Policy files that change while the service runs, in the ways in which they are changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sqlbak.errors import ConfigurationInvalid
from sqlbak.scheduler.configuration_watch import RETRY_SECONDS, ConfigurationWatch

GOOD = """\
vaults: {main: {url: "file:///srv/vault", redundancy: local}}
policies: {gold: {vault: main, full: 0 1 * * *, log: 15m}}
instances: {%s: {engine: postgres, dsn: "host=a"}}
"""


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def names(watch: ConfigurationWatch) -> list[str] | None:
    """The instances after the files have stood still for a moment; None: nothing new."""
    for _ in range(3):
        if (loaded := watch.poll()) is not None:
            return sorted(loaded.configuration.instances)
    return None


def swap(link: Path, target: str) -> None:
    """As Kubernetes and git-sync do it: nobody ever sees the link missing."""
    draft = link.with_name("draft")
    draft.symlink_to(target)
    draft.replace(link)


def test_a_config_map_that_is_swapped_behind_its_links_is_read_again(tmp_path: Path) -> None:
    for version, instance in (("..one", "orders"), ("..two", "stock")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "fleet.yaml").write_text(GOOD % instance)
        os.utime(tmp_path / version / "fleet.yaml", (1, 1))
    (tmp_path / "..data").symlink_to("..one")
    (tmp_path / "fleet.yaml").symlink_to("..data/fleet.yaml")
    watch = ConfigurationWatch(tmp_path)
    assert names(watch) == ["orders"]
    assert names(watch) is None
    swap(tmp_path / "..data", "..two")
    assert names(watch) == ["stock"]


def test_a_checkout_that_is_swapped_as_a_whole_is_read_again(tmp_path: Path) -> None:
    for version, instance in (("one", "orders"), ("two", "stock")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "fleet.yaml").write_text(GOOD % instance)
    link = tmp_path / "current"
    link.symlink_to("one")
    watch = ConfigurationWatch(link)
    assert names(watch) == ["orders"]
    swap(link, "two")
    assert names(watch) == ["stock"]


def test_what_is_only_made_readable_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "fleet.yaml"
    file.write_text(GOOD % "orders")
    file.chmod(0o600)
    watch = ConfigurationWatch(tmp_path)
    assert names(watch) == ["orders"]
    file.chmod(0o644)
    assert names(watch) == ["orders"]


def test_a_bad_state_is_refused_once_and_again_after_a_while(tmp_path: Path) -> None:
    file, clock = tmp_path / "fleet.yaml", Clock()
    file.write_text(GOOD % "orders")
    watch = ConfigurationWatch(tmp_path, clock=clock)
    assert names(watch) == ["orders"]
    file.write_text("policies: [")
    with pytest.raises(ConfigurationInvalid):
        names(watch)
    assert names(watch) is None
    clock.now = RETRY_SECONDS
    with pytest.raises(ConfigurationInvalid):
        names(watch)
    file.write_text(GOOD % "stock")
    assert names(watch) == ["stock"]
    clock.now = 10 * RETRY_SECONDS
    assert names(watch) is None
