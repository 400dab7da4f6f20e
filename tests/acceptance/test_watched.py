"""A running service is watched: a real Prometheus scrapes it and loads the published rules, and a
real webhook is told what begins and what is over.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.site import Site, kill_hard
from tests.engines.postgres.clusters import available_majors, free_port, running_cluster
from tests.monitor.programs import CHECKOUT, RULES, program
from tests.monitor.receivers import webhook

pytestmark = pytest.mark.postgres

DASHBOARD = CHECKOUT / "docker" / "grafana" / "sqlbak.json"
PATIENCE_SECONDS = 120.0


def until(done: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (answer := done()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return answer


def page(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[str]:
    """A running Prometheus that scrapes ``target`` every second; the URL of its interface."""
    folder.mkdir()
    shutil.copy(RULES, folder)
    (folder / "prometheus.yaml").write_text(
        "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
        f"rule_files: [{RULES.name}]\n"
        "scrape_configs:\n  - job_name: sqlbak\n"
        f'    static_configs: [{{targets: ["{target}"]}}]\n'
    )
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [
            program("prometheus"),
            f"--config.file={folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address}",
            "--log.level=error",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield f"http://{address}"
    finally:
        kill_hard(process)


def asked(prometheus_url: str, path: str, **query: str) -> Any:
    code, text = page(f"{prometheus_url}/api/v1/{path}?{urllib.parse.urlencode(query)}")
    return json.loads(text)["data"] if code == 200 else None


def one_value(prometheus_url: str, expression: str) -> float | None:
    found = asked(prometheus_url, "query", query=expression)
    return float(found["result"][0]["value"][1]) if found and found["result"] else None


def test_a_service_is_scraped_and_tells_what_begins_and_what_is_over(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    with webhook() as hook, running_cluster(available_majors()[-1]) as cluster:
        site = Site(tmp_path, cluster.dsn(), environment={"HOOK": hook.url})
        (site.config / "told.yaml").write_text(
            "notifications:\n  ops:\n    webhook: {url: env:HOOK}\n    severity: critical\n"
        )
        process = site.start("run", "--listen", address, "--tick", "0.2", "--look", "0.3")
        try:
            with prometheus(tmp_path / "prometheus", address) as url:
                until(lambda: page(f"http://{address}/readyz")[0] == 200)
                assert page(f"http://{address}/healthz") == (200, "ok\n")
                healthy = 'sqlbak_item_health{item="orders",health="healthy"}'
                until(lambda: one_value(url, healthy) == 1)

                (target,) = asked(url, "targets")["activeTargets"]
                assert (target["health"], target["lastError"]) == ("up", "")
                assert len(rules_of(url)) > 10
                until(lambda: {rule["health"] for rule in rules_of(url)} == {"ok"})
                assert "firing" not in {rule["state"] for rule in rules_of(url)}
                assert one_value(url, "sqlbak_rpo_seconds < sqlbak_rpo_limit_seconds") is not None
                assert one_value(url, 'sqlbak_last_backup_bytes{type="full"}') > 0  # type: ignore[operator]
                assert one_value(url, "sqlbak_slot_lag_bytes") is not None

                assert empty_panels(url) == {"Problems"}

                cluster.stop()
                until(lambda: one_value(url, "sqlbak_server_up") == 0)
                until(lambda: ("new", "server_unreachable") in hook.kinds())
                until(lambda: "Problems" not in empty_panels(url))
                cluster.start()
                until(lambda: ("over", "server_unreachable") in hook.kinds())
                until(lambda: one_value(url, healthy) == 1)
                told = [kind for kind in hook.kinds() if kind[1] == "server_unreachable"]
                assert told == [("new", "server_unreachable"), ("over", "server_unreachable")]
            process.terminate()
            _, said = process.communicate(timeout=PATIENCE_SECONDS)
            assert process.returncode == 0, said
            assert '"notice sent"' in said
            assert hook.url not in said
        finally:
            kill_hard(process)


def empty_panels(url: str) -> set[str]:
    """The titles of the dashboard's panels of which no query finds anything."""
    found = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        asks = [one["expr"].replace("$item", ".*") for one in panel.get("targets", [])]
        if asks and not any(asked(url, "query", query=ask)["result"] for ask in asks):
            found.add(panel["title"])
    return found


def rules_of(url: str) -> list[dict[str, Any]]:
    return [rule for group in asked(url, "rules")["groups"] for rule in group["rules"]]
