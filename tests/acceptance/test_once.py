"""``sqlbak run --once``, and what it says before it does anything."""

from __future__ import annotations

import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sqlbak.fleet import Fleet
from sqlbak.model import PointType
from sqlbak.policy.loading import load_configuration
from sqlbak.scheduler.decisions import Decisions, decide_all
from sqlbak.vault.items import item_ids
from sqlbak.vault.lease import Leases
from sqlbak.vault.opening import open_store
from tests.acceptance.site import Site
from tests.engines.postgres.clusters import Cluster

pytestmark = pytest.mark.postgres

FULL, DIFFERENTIAL, LOG = PointType.FULL, PointType.DIFFERENTIAL, PointType.LOG
POLICY = 'full: "0 1 * * sun"\n    differential: "0 1 * * mon-sat"\n    log: 15m'


def decided(site: Site, monkeypatch: pytest.MonkeyPatch, later: timedelta) -> Decisions:
    monkeypatch.setenv("ORDERS_DSN", site.dsn)
    with Fleet(load_configuration(site.config).configuration) as fleet:
        return decide_all(fleet, datetime.now(UTC) + later, jobs_at_once=4)


def next_differential() -> timedelta:
    """Until a Wednesday noon: a day with a differential and no full around."""
    now = datetime.now(UTC)
    days = (2 - now.weekday()) % 7 or 7
    noon = (now + timedelta(days=days)).replace(hour=12, minute=7)
    return noon - now


def test_a_dry_run_writes_nothing_and_a_run_does_what_it_said(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path, cluster.dsn(), policy=POLICY)
    dry = site.run("run", "--once", "--dry-run").ok()
    assert [(one["item"], one["takes"], one["reason"]) for one in dry["due"]] == [
        ("orders", "full", "it has no full backup yet")
    ]
    assert not (tmp_path / "vault").exists()
    did = site.run("run", "--once").ok()
    assert [(one["outcome"], len(one["points"])) for one in did["due"]] == [("done", 1)]
    assert len(list((tmp_path / "vault").glob("items/*/points/*"))) == 1

    quarter = decided(site, monkeypatch, timedelta(minutes=16))
    assert [(one.asked, one.takes) for one in quarter.due if one.asked is LOG] == [(LOG, LOG)]
    later = {one.asked: one for one in decided(site, monkeypatch, next_differential()).due}
    assert later[DIFFERENTIAL].takes is DIFFERENTIAL
    assert later[LOG].job.missed

    cluster.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
    lost = {one.asked: one for one in decided(site, monkeypatch, next_differential()).due}
    assert lost[LOG].takes is FULL
    assert lost[LOG].converted is not None
    assert "the server no longer holds the log since the last backup" in lost[LOG].converted
    assert lost[DIFFERENTIAL].takes is DIFFERENTIAL

    away = Site(tmp_path, cluster.dsn().replace(f"port={cluster.port}", "port=1"), policy=POLICY)
    unasked = decided(away, monkeypatch, timedelta(minutes=16))
    assert [trouble.error.code for trouble in unasked.troubles] == ["server_unreachable"]


def test_a_run_that_fails_ends_with_1_and_says_why_and_what_waits_is_no_failure(
    tmp_path: Path, cluster: Cluster
) -> None:
    away = Site(tmp_path, cluster.dsn().replace(f"port={cluster.port}", "port=1"))
    answer = away.run("run", "--once")
    assert answer.code == 1
    (one,) = answer.document["due"]
    assert (one["outcome"], one["error"]["code"]) == ("failed", "server_unreachable")
    quiet = 'full: "0 1 * * *"\n    quiet_hours: ["00:00-23:59"]'
    waits = Site(tmp_path, cluster.dsn(), policy=quiet)
    (one,) = waits.run("run", "--once").ok()["due"]
    assert one["outcome"] == "waiting"
    assert one["waits"] == "for the end of the quiet hours"
    assert one["waits_until"]


def test_hooks_run_around_a_backup_whoever_asked_for_it(tmp_path: Path, cluster: Cluster) -> None:
    diary = tmp_path / "diary"
    script = tmp_path / "hook"
    script.write_text(
        f"#!{sys.executable} -S\n"
        "import os\n"
        "names = ('HOOK', 'ITEM', 'TYPE', 'OUTCOME')\n"
        "words = [os.environ.get('SQLBAK_' + name, '-') for name in names]\n"
        "secret = '!' if 'ORDERS_DSN' in os.environ else ''\n"
        f"open({str(diary)!r}, 'a').write(' '.join(words) + secret + '\\n')\n"
    )
    script.chmod(0o755)
    site = Site(tmp_path, cluster.dsn())
    file = site.config / "orders.yaml"
    file.write_text(
        site.text()
        + f"    hooks: {{pre: {{command: [{script}]}}, post: {{command: [{script}]}}}}\n"
    )
    site.run("run", "--once").ok()
    site.backup("full")
    assert (
        diary.read_text().splitlines()
        == [
            "pre orders full -",
            "post orders full succeeded",
        ]
        * 2
    )

    # What another process takes now is none of our business, and so are hooks.
    with closing(open_store(site.vault_url)) as store:
        (item_id,) = item_ids(store)
        lease = Leases(store, holder="another").acquire(f"{item_id}.data", purpose="a full")
        assert site.run("backup", "orders", "--type", "full").code == 1
        lease.release()
    assert len(diary.read_text().splitlines()) == 4
