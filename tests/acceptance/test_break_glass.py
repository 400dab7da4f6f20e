"""docs/break-glass.md is run as it stands: without sqlbak a database comes back."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.site import Site
from tests.engines.postgres.clusters import (
    Cluster,
    free_port,
    give_to_server_user,
    has_working_program,
    run_as_server_user,
    scratch_directory,
)

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.skipif(
        any(shutil.which(tool) is None for tool in ("zstd", "tar", "jq", "split")),
        reason="needs zstd, tar, jq and split",
    ),
]

PAGE = Path(__file__).parents[2] / "docs" / "break-glass.md"


def script() -> str:
    return "\n".join(re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL))


def test_the_page_restores_to_the_instant_with_stock_tools_alone(
    site: Site, cluster: Cluster
) -> None:
    cluster.execute("CREATE TABLE marker (n int)")
    site.backup("full")
    cluster.execute("INSERT INTO marker VALUES (1)")
    logs = [site.backup("log")["id"]]
    cluster.execute("INSERT INTO marker VALUES (2)")
    (stop_at,) = cluster.execute("SELECT clock_timestamp()::text")[0]
    cluster.execute("INSERT INTO marker VALUES (3)")
    logs.append(site.backup("log")["id"])
    full = next(p["id"] for p in site.run("list").ok()["points"] if p["type"] == "full")
    (item,) = (site.root / "vault" / "items").iterdir()

    with scratch_directory() as home:
        target = home / "data"
        target.mkdir(mode=0o700)
        done = subprocess.run(
            ["sh", "-c", script()],
            env={
                "PATH": "/usr/local/bin:/usr/bin:/bin",
                "ITEM": str(item),
                "FULL": full,
                "LOGS": " ".join(logs),
                "TARGET": str(target),
                "STOP_AT": stop_at,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        for path in (target, *target.rglob("*")):
            give_to_server_user(path)
        if has_working_program(cluster.major, "pg_verifybackup"):
            run_as_server_user([cluster.programs / "pg_verifybackup", target])
        restored = Cluster(cluster.major, home)
        restored.port = free_port()
        restored.data_directory = target
        restored.configure(
            {"port": str(restored.port), "unix_socket_directories": str(home), "fsync": "off"}
        )
        restored.start()
        try:
            rows = restored.execute("SELECT n FROM marker ORDER BY n")
        finally:
            restored.stop()
    assert rows == [(1,), (2,)]
