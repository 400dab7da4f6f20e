"""How well a real server is protected, as the program tells it: exit code, health and reasons."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sqlbak.cli.main import main
from sqlbak.fleet import Fleet
from sqlbak.jobs.backup import back_up
from sqlbak.model import PointType
from sqlbak.policy.loading import load_configuration
from tests.acceptance.site import Answer, Site
from tests.engines.postgres.clusters import available_majors, running_cluster

pytestmark = pytest.mark.postgres

AN_HOUR = timedelta(hours=1)


def item_of(document: dict[str, Any]) -> dict[str, Any]:
    (item,) = document["items"]
    assert isinstance(item, dict)
    return item


def codes(item: dict[str, Any], severity: str = "") -> set[str]:
    return {one["code"] for one in item["problems"] if severity in ("", one["severity"])}


def asked(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> Answer:
    """One run of the program in this process."""
    monkeypatch.setenv("ORDERS_DSN", site.dsn)
    monkeypatch.setenv("SQLBAK_CONFIG", str(site.config))
    with pytest.raises(SystemExit) as ended:
        main(["status", *words])
    printed = capsys.readouterr()
    return Answer(int(ended.value.code or 0), printed.out, printed.err)


def test_an_item_goes_from_unprotected_to_healthy_to_at_risk_to_unreachable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def status(*words: str) -> Answer:
        return asked(site, monkeypatch, capsys, *words)

    with running_cluster(available_majors()[-1]) as cluster:
        # Backups that began an hour ago, by the scheduler's clock, are enough for a log a day.
        site = Site(tmp_path, cluster.dsn(), policy='full: "0 1 * * *"\n    log: 24h')
        answer = status("--json")
        assert answer.code == 4
        assert item_of(answer.document)["health"] == "unprotected"
        assert not (tmp_path / "vault").exists(), "looking makes no vault"

        monkeypatch.setenv("ORDERS_DSN", site.dsn)
        with Fleet(load_configuration(site.config).configuration) as fleet:
            for kind in (PointType.FULL, PointType.LOG):
                back_up(fleet, "orders", kind, now=lambda: datetime.now(UTC) - AN_HOUR)
        healthy = item_of(status("--json").ok())
        assert healthy["health"] == "healthy"
        assert codes(healthy) - {"server_problem"} == set()
        assert healthy["rpo_seconds"] < 300
        assert healthy["slot"]["exists"]
        assert healthy["slot"]["lag_bytes"] >= 0
        assert healthy["restore_bytes"] > 0
        assert set(healthy["last"]) == {"full", "log"}
        assert set(healthy["next"]) == {"full", "log"}

        # The same backups are late for a log every quarter of an hour.
        file = site.config / "orders.yaml"
        file.write_text(site.text().replace("log: 24h", "log: 15m"))
        late = status("orders", "--json")
        assert late.code == 4
        assert item_of(late.document)["health"] == "at_risk"
        assert codes(item_of(late.document), "warning") == {"backup_missing"}
        with Fleet(load_configuration(site.config).configuration) as fleet:
            back_up(fleet, "orders", PointType.LOG)
        assert item_of(status("--json").ok())["health"] == "healthy"

    gone = status("--json")
    assert gone.code == 4
    item = item_of(gone.document)
    assert item["health"] == "unreachable"
    assert codes(item) == {"server_unreachable"}
    # What the vault knows is told all the same, and is all there is to tell when nobody asks more.
    assert item["newest_restorable"] is not None
    assert item["slot"] is None
    alone = item_of(status("--vault-only", "--json").ok())
    assert (alone["health"], alone["server_asked"]) == ("healthy", False)

    spoken = site.run("status", as_json=False)
    assert spoken.code == 4
    assert "unreachable" in spoken.out
    assert "critical: the server of orders cannot be asked" in spoken.out

    # Somebody deletes data of the full; its manifest is still there.
    next((tmp_path / "vault").glob("items/*/data/*/*")).unlink()
    damaged = status("--vault-only", "--json")
    assert damaged.code == 4
    assert codes(item_of(damaged.document), "critical") == {"backup_data_damaged"}


def test_a_vault_that_is_away_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(tmp_path, "host=localhost")
    (tmp_path / "vault").mkdir()
    (tmp_path / "vault" / "vault.json").write_text("{")
    answer = asked(site, monkeypatch, capsys, "--json")
    assert answer.code == 4
    item = item_of(answer.document)
    assert item["health"] == "unreachable"
    assert codes(item) == {"vault_unreachable"}


def test_an_unknown_item_is_a_wrong_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(tmp_path, "host=localhost")
    answer = asked(site, monkeypatch, capsys, "nobody", "--json")
    assert (answer.code, answer.document["error"]["code"]) == (2, "unknown_name")
