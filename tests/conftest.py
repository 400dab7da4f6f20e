"""Options of the whole suite."""

from __future__ import annotations

import hypothesis
import pytest

pytest_plugins = ["tests.vault.s3_fixtures"]

# How long an example takes tells of the machine, not of the code.
hypothesis.settings.register_profile("sqlbak", deadline=None)
hypothesis.settings.load_profile("sqlbak")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="also run the long tests (make soak)")
    parser.addoption(
        "--sqlserver",
        choices=("simulator", "container"),
        default="simulator",
        help="what the SQL Server contract tests run against",
    )
    parser.addoption(
        "--sqlserver-version",
        default="2022",
        help="of the container image, with --sqlserver=container: 2022 or 2025",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--soak"):
        return
    skip = pytest.mark.skip(reason="long; run it with: make soak")
    for item in items:
        if "soak" in item.keywords:
            item.add_marker(skip)
