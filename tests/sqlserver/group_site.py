"""An availability group of two or three simulated servers, each with a clock, an msdb and a
delivery folder of its own, sqlbak beside them, and one more server to restore on. Containers with
nothing around them form no group, so that this is tested against the simulator alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlbak.engines.port import DatabaseTarget, Inspection
from sqlbak.fleet import Fleet
from sqlbak.jobs.backup import BackupOutcome, back_up
from sqlbak.model import Point, PointType
from sqlbak.policy.loading import load_configuration
from sqlbak.restore.databases import restore_database_item
from sqlbak.restore.item_windows import item_windows
from sqlbak.restore.windows import Window
from sqlbak.vault.manifest import Manifest
from tests.sqlserver_simulator import AvailabilityGroup, Simulator
from tests.sqlserver_simulator.instance import Unknowns

FOLDER = "/var/opt/mssql/backup"
START = datetime(2026, 10, 20, 6, tzinfo=UTC)
FULL, DIFFERENTIAL, LOG = PointType.FULL, PointType.DIFFERENTIAL, PointType.LOG


@dataclass
class GroupSite:
    """``host`` is what the policy names beside the replicas: a server's name, or ``listener``,
    which leads to whoever is the primary. ``configured`` are the replicas that it names."""

    folder: Path
    nodes: dict[str, Simulator]
    spare: Simulator
    group: AvailabilityGroup
    host: str = "listener"
    configured: tuple[str, ...] = ()
    is_folder_shared: bool = False
    user: str = "sa"
    more_instances: dict[str, str] = field(default_factory=dict)
    twice: list[tuple[datetime, datetime]] = field(default_factory=list)
    instants: list[datetime] = field(default_factory=list)
    states: list[list[str]] = field(default_factory=list)

    # the servers ---------------------------------------------------------------------------
    @property
    def primary(self) -> Simulator:
        return self.nodes[self.group.primary.server_name]

    @property
    def secondary(self) -> Simulator:
        return next(node for node in self.nodes.values() if node is not self.primary)

    def delivery(self, name: str) -> Path:
        return self.folder / ("delivery" if self.is_folder_shared else f"delivery-{name}")

    def advance(self, **parts: float) -> None:
        for simulator in (*self.nodes.values(), self.spare):
            simulator.clock.advance(**parts)

    def now(self) -> datetime:
        """True time, without any server's skew."""
        return self.primary.clock.utc() - self.primary.clock.skew

    def insert(self, value: str) -> None:
        self.advance(seconds=10)
        self.primary.insert("Sales", value)
        self.note()
        self.advance(seconds=10)

    def note(self) -> None:
        """Write down what there is, from the next tick of the log's clock on."""
        moment = self.primary.clock.utc()
        tick = -(-(moment.microsecond * 300 // 1_000_000) * 1_000_000 // 300)
        self.instants.append(moment.replace(microsecond=tick))
        self.states.append(self.primary.rows("Sales"))

    def at(self, instant: datetime) -> list[str]:
        """The oracle: what had been committed by then, by the clocks of the primaries."""
        known = [rows for at, rows in zip(self.instants, self.states, strict=True) if at <= instant]
        return known[-1] if known else []

    def fail_over(self, name: str, **options: Any) -> None:
        before = self.primary.clock.utc()
        with self.primary.lock:
            self.group.fail_over(self.nodes[name].instance, **options)
        # Times that the clocks of both primaries showed.
        self.twice.append((self.primary.clock.utc(), before))
        self.write_policy()

    def take_down(self, name: str) -> None:
        """A secondary that runs no more."""
        self.nodes[name].stop()
        self.group.not_synchronizing.add(name)

    def bring_up(self, name: str) -> None:
        self.nodes[name].start()
        self.group.not_synchronizing.discard(name)

    def foreign_log(self, name: str, label: str = "shipping") -> None:
        self.nodes[name].execute(f"BACKUP LOG Sales TO DISK = N'NUL' WITH NAME = N'{label}'")

    # sqlbak ----------------------------------------------------------------------------------
    def write_policy(self) -> None:
        host = self.primary if self.host == "listener" else self.nodes[self.host]
        replicas = "".join(
            f"""
      {name}:
        host: {self.nodes[name].host}
        port: {self.nodes[name].port}
        delivery: {{disk: {{server_path: {FOLDER}, local_path: "{self.delivery(name)}"}}}}"""
            for name in self.configured
        )
        login = f"user: {self.user}\n    password: env:GROUP_PASSWORD\n    tls: clear"
        first = self.delivery(host.instance.server_name)
        more = "".join(
            f"""
  {name}:
    engine: sqlserver
    host: {self.nodes[node].host}
    port: {self.nodes[node].port}
    {login}
    databases: {{exclude: [master, model, msdb]}}
    delivery: {{disk: {{server_path: {FOLDER}, local_path: "{self.delivery(node)}"}}}}
"""
            for name, node in self.more_instances.items()
        )
        (self.folder / "policies.yaml").write_text(
            f"""
vaults:
  main: {{url: "file://{self.folder / "vault"}", redundancy: local}}
policies:
  gold: {{vault: main, full: "0 1 * * sun", differential: "0 1 * * mon-sat", log: 15m}}
instances:
  erp:
    engine: sqlserver
    host: {host.host}
    port: {host.port}
    {login}
    databases: {{exclude: [master, model, msdb]}}
    delivery: {{disk: {{server_path: {FOLDER}, local_path: "{first}"}}}}
    {f"replicas:{replicas}" if replicas else ""}
  spare:
    engine: sqlserver
    host: {self.spare.host}
    port: {self.spare.port}
    {login}
    databases: {{include: [nothing]}}
    delivery: {{disk: {{server_path: {FOLDER}, local_path: "{self.folder / "spare"}"}}}}
{more}"""
        )

    @contextmanager
    def fleet(self) -> Iterator[Fleet]:
        with Fleet(load_configuration(self.folder / "policies.yaml").configuration) as fleet:
            yield fleet

    def backup(self, kind: PointType, item: str = "erp/Sales", **options: Any) -> BackupOutcome:
        with self.fleet() as fleet:
            return back_up(fleet, item, kind, **options)

    def point(self, kind: PointType, **options: Any) -> Point:
        """Where exactly the kind asked for must come of it."""
        outcome = self.backup(kind, **options)
        assert [point.type for point in outcome.points] == [kind], outcome.notes
        return outcome.points[0]

    def inspect(self, item: str = "erp/Sales") -> Inspection:
        with self.fleet() as fleet:
            return fleet.inspect(item)

    def manifest(self, point: Point) -> Manifest:
        with self.fleet() as fleet:
            for stored in fleet.stored_items(None):
                if any(one.id == point.id for one in stored.points()):
                    return stored.vault.manifest(stored.item.id, point.id)
        raise AssertionError(f"{point.id} is not there")

    def taken_on(self, point: Point) -> str:
        """The server that gave a backup out, as the manifest has it."""
        facts = self.manifest(point).facts or {}
        assert facts["header"]["ServerName"] == facts["server"]["name"]
        return str(facts["server"]["name"])

    def items(self) -> list[str]:
        with self.fleet() as fleet:
            return [stored.item.name for stored in fleet.stored_items(None)]

    def points(self) -> list[Point]:
        with self.fleet() as fleet:
            found = [point for stored in fleet.stored_items(None) for point in stored.points()]
        return sorted(found, key=lambda point: (point.last_lsn, point.first_lsn, point.id))

    def windows(self) -> list[Window]:
        with self.fleet() as fleet:
            return [
                window for stored in fleet.stored_items(None) for window in item_windows(stored)
            ]

    def restored(self, to: datetime | str = "latest", **options: Any) -> list[str]:
        """The rows of a copy, restored on the spare server and dropped again."""
        asked = to if isinstance(to, str) else to.isoformat()
        with self.fleet() as fleet:
            restore_database_item(
                fleet,
                "erp/Sales",
                asked,
                target=lambda _source: DatabaseTarget("Copy"),
                server=lambda _item: fleet.restore_server("spare"),
                **options,
            )
        rows = self.spare.rows("Copy")
        self.spare.execute("DROP DATABASE Copy")
        return rows

    def leftovers(self) -> list[str]:
        """Files that nobody removed from the delivery folders."""
        folders = self.folder.glob("delivery*")
        return sorted(path.name for folder in folders for path in folder.iterdir())


@contextmanager
def group_site(
    folder: Path,
    *,
    count: int = 2,
    host: str = "listener",
    configured: Sequence[str] | None = None,
    zones: Sequence[str] = (),
    is_folder_shared: bool = False,
    unknowns: Unknowns | None = None,
    **group: Any,
) -> Iterator[GroupSite]:
    """The database Sales on NODE1 (the primary), NODE2 and so on, with one row ``before``."""
    names = [f"NODE{number}" for number in range(1, count + 1)]
    os.environ["GROUP_PASSWORD"] = "Str0ng!Passw0rd"
    nodes: dict[str, Simulator] = {}
    for number, name in enumerate(names):
        delivery = folder / ("delivery" if is_folder_shared else f"delivery-{name}")
        delivery.mkdir(parents=True, exist_ok=True)
        nodes[name] = Simulator(
            {FOLDER: delivery},
            server_name=name,
            zone=zones[number] if zones else "UTC",
            unknowns=unknowns,
        )
    (folder / "spare").mkdir()
    spare = Simulator({FOLDER: folder / "spare"}, server_name="SPARE")
    for simulator in (*nodes.values(), spare):
        simulator.clock.set(START)
    first, *others = nodes.values()
    first.create_database("Sales")
    made = first.group("sales", ["Sales"], others, **group)
    site = GroupSite(
        folder,
        nodes,
        spare,
        made,
        host,
        tuple(names) if configured is None else tuple(configured),
        is_folder_shared,
    )
    site.instants.append(START - timedelta(days=1))
    site.states.append([])
    try:
        for simulator in (*nodes.values(), spare):
            simulator.start()
        site.write_policy()
        site.insert("before")
        site.advance(minutes=1)
        yield site
    finally:
        for simulator in (*nodes.values(), spare):
            simulator.stop()
