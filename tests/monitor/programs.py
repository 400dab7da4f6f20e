"""Prometheus's own programs, where they can be had."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
RULES = CHECKOUT / "docker" / "prometheus" / "sqlbak.rules.yaml"


def program(name: str) -> Path:
    """``prometheus`` or ``promtool``; skips the test where it is not here."""
    named = os.environ.get("SQLBAK_TEST_PROMETHEUS_BIN_DIR")
    folders = [Path(named)] if named else [CHECKOUT / ".cache" / "prometheus" / "usr" / "bin"]
    found = next((folder / name for folder in folders if (folder / name).exists()), None)
    found = found or (Path(path) if (path := shutil.which(name)) else None)
    if found is None:
        pytest.skip(f"{name} is not here: run tests/monitor/install_prometheus.sh")
    return found
