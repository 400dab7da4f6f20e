"""The published alert rules and the dashboard: judged by Prometheus's own checker."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from sqlbak.model import PointType
from sqlbak.monitor.events import EventKind
from sqlbak.monitor.metrics import FleetCollector, Tally, Vitals
from sqlbak.monitor.notifier import postbox_of
from sqlbak.monitor.status import Health, status_of
from sqlbak.monitor.watch import Sight
from sqlbak.policy.notifications import NotificationSettings
from sqlbak.scheduler.logs import event_log
from tests.monitor.programs import CHECKOUT, RULES, program
from tests.monitor.watching import NOON, look, served, watched

DASHBOARD = CHECKOUT / "docker" / "grafana" / "sqlbak.json"
_METRIC = re.compile(r"sqlbak_[a-z_]+")


def promtool(*words: str | Path) -> None:
    done = subprocess.run(
        [program("promtool"), *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def served_metrics() -> set[str]:
    """The names of all that a scrape gives."""
    status = status_of(watched(served(NOON), look=look(), running={PointType.FULL: NOON}), NOON)
    sight = Sight((status,), NOON, 0.1)
    tally = Tally()
    tally.emit(status_of(watched(None), NOON).concerns[0].event(NOON))
    settings = NotificationSettings.model_validate({"webhook": {"url": "env:HOOK"}})
    box = postbox_of("ops", settings, event_log())
    collector = FleetCollector(lambda: sight, lambda: Vitals((), 0.0), lambda: [box], tally)
    names = set()
    for family in collector.collect():
        names |= {sample.name for sample in family.samples} or {family.name}
    return names


def test_the_rules_are_what_prometheus_understands() -> None:
    promtool("check", "rules", "--lint-fatal", RULES)


def test_the_example_of_a_scrape_is_what_prometheus_understands() -> None:
    promtool("check", "config", RULES.parent / "prometheus.yaml")


def test_the_rules_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    for file in (RULES, Path(__file__).parent / "alerts.test.yaml"):
        shutil.copy(file, tmp_path)
    promtool("test", "rules", tmp_path / "alerts.test.yaml")


def test_rules_and_dashboard_ask_only_for_what_is_served() -> None:
    rules: dict[str, Any] = YAML(typ="safe").load(RULES)
    texts = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    dashboard = json.loads(DASHBOARD.read_text())
    panels = [
        target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])
    ]
    assert len(panels) >= 8
    asked = {name for text in [*texts, *panels] for name in _METRIC.findall(text)}
    assert asked <= served_metrics()
    kinds = {kind for text in [*texts, *panels] for kind in re.findall(r'kind="([a-z_]+)"', text)}
    assert kinds <= {kind.value for kind in EventKind}
    healths = {one for text in texts for one in re.findall(r'health="([a-z_]+)"', text)}
    assert healths <= {health.value for health in Health}


@pytest.mark.parametrize("name", sorted(served_metrics()))
def test_every_metric_is_explained_in_the_documentation(name: str) -> None:
    assert f"`{name}`" in (CHECKOUT / "docs" / "operations.md").read_text()
