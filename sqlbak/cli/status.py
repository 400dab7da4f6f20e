"""``sqlbak status``: is everything protected as the policies promise?"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from sqlbak.cli.output import Output, instant, size_text
from sqlbak.cli.session import AsJson, Config, Item, session
from sqlbak.cli.signals import stop_on_signals
from sqlbak.errors import ProtectionAtRisk, UnknownName
from sqlbak.fleet import Fleet, StoredItem, instance_of
from sqlbak.model import PointType
from sqlbak.monitor.changes import unprotected
from sqlbak.monitor.concerns import span_text
from sqlbak.monitor.events import EventSeverity
from sqlbak.monitor.gathering import Gatherer
from sqlbak.monitor.status import Health, ItemStatus, status_of

__all__ = ["status"]


def status(
    context: typer.Context,
    item: Item = None,
    vault_only: Annotated[
        bool, typer.Option("--vault-only", help="Ask no server; tell what the vaults know.")
    ] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show how well each item is protected, what is wrong, and what to do. Exit 4 when any item is
    not healthy."""
    here = session(context, config, as_json=as_json)
    with stop_on_signals() as stop, here.fleet(stop) as fleet:
        _require_known(fleet, item)
        gathered = Gatherer(fleet).gather(item, _now, asks_servers=not vault_only)
        if item is not None and not gathered.items:
            raise UnknownName("item", item, fleet.item_names(instance_of(item)))
        moment = _now()
        statuses = [status_of(watched, moment) for watched in gathered.items]
        unwatched, left_out = list(gathered.unwatched), list(gathered.left_out)
    at_risk = bool(left_out) or any(one.health is not Health.HEALTHY for one in statuses)
    here.output.document(
        {
            "at_risk": at_risk,
            "as_of": instant(moment),
            "items": [status_document(one) for one in statuses],
            "unprotected_databases": left_out,
            "unwatched": [{"item": one.item.name, "item_id": one.item.id} for one in unwatched],
        }
    )
    _show(statuses, unwatched, here.output, in_full=item is not None)
    for name in left_out:
        event = unprotected(name, moment)
        here.output.text()
        here.output.text(f"{event.severity.value}: {event.what}")
        here.output.text(f"    {event.remedy}")
    if at_risk:
        raise typer.Exit(ProtectionAtRisk.exit_code)


def _now() -> datetime:
    return datetime.now(UTC)


def _require_known(fleet: Fleet, item: str | None) -> None:
    if item is not None and instance_of(item) not in fleet.instances():
        raise UnknownName("item", item, fleet.instances())


def status_document(one: ItemStatus) -> dict[str, Any]:
    """One item's status as JSON shows it: times in UTC, sizes in bytes, spans in seconds."""
    slot = one.slot
    return {
        "item": one.name,
        "item_id": one.item_id,
        "engine": one.engine,
        "policy": one.policy_name,
        "vault": one.vault_name,
        "health": one.health.value,
        "last": {
            kind.value: {
                "point": point.id,
                "started_at": instant(point.started_at),
                "finished_at": instant(point.finished_at),
                "size_bytes": point.size_bytes,
            }
            for kind, point in one.last.items()
        },
        "next": {kind.value: instant(at) for kind, at in one.next.items()},
        "running": {kind.value: instant(at) for kind, at in one.running.items()},
        "stale_jobs": one.stale_jobs,
        "oldest_restorable": instant(one.oldest_restorable),
        "newest_restorable": instant(one.newest_restorable),
        "rpo_seconds": None if one.rpo is None else one.rpo.total_seconds(),
        "rpo_promised_seconds": one.promise.target.total_seconds(),
        "rpo_limit_seconds": one.promise.limit.total_seconds(),
        "chain_usable": one.is_chain_usable,
        "size_bytes": one.size_bytes,
        "added_bytes_per_day": round(one.added_bytes_per_day),
        "restore_bytes": one.restore_bytes,
        "restore_seconds": None if one.restore_seconds is None else round(one.restore_seconds, 1),
        "server_asked": one.server_was_asked,
        "slot": None
        if slot is None
        else {
            "name": slot.name,
            "exists": slot.exists,
            "wal_status": slot.wal_status,
            "lag_bytes": slot.lag_bytes,
            "safe_wal_bytes": slot.safe_bytes,
        },
        "problems": [
            {
                "code": concern.kind.value,
                "detail": concern.detail,
                "severity": concern.severity.value,
                "what": concern.what,
                "remedy": concern.remedy,
            }
            for concern in one.concerns
        ],
    }


def _show(
    statuses: list[ItemStatus], unwatched: list[StoredItem], output: Output, *, in_full: bool
) -> None:
    output.table(
        ("item", "health", "would lose", "promised", "newest restorable", "last full", "size"),
        [
            [
                one.name,
                one.health.value.replace("_", " "),
                "everything" if one.rpo is None else span_text(one.rpo),
                span_text(one.promise.target),
                "-" if one.newest_restorable is None else f"{one.newest_restorable:%F %T}Z",
                _last_text(one, PointType.FULL),
                size_text(one.size_bytes),
            ]
            for one in statuses
        ],
    )
    for one in statuses:
        if in_full:
            _show_in_full(one, output)
        for concern in one.concerns:
            if concern.severity is EventSeverity.NOTICE and not in_full:
                continue
            output.text()
            output.text(f"{concern.severity.value}: {concern.what}")
            for line in concern.remedy.splitlines():
                output.text(f"    {line}")
    for stored in unwatched:
        output.note(
            f"note: {stored.item.name} ({stored.item.id}) has backups, but nothing configured "
            "stands for it"
        )
    if not statuses:
        output.note("nothing is configured: write instances: into the policy files")


def _last_text(one: ItemStatus, kind: PointType) -> str:
    point = one.last.get(kind)
    return "-" if point is None else f"{point.started_at:%F %T}Z"


def _show_in_full(one: ItemStatus, output: Output) -> None:
    output.text()
    for kind in PointType:
        if kind in one.next or kind in one.last:
            upcoming = f", next {one.next[kind]:%F %T}Z" if kind in one.next else ""
            running = f", running since {one.running[kind]:%F %T}Z" if kind in one.running else ""
            output.text(f"{kind.value}: last {_last_text(one, kind)}{upcoming}{running}")
    if one.oldest_restorable is not None:
        output.text(f"restorable from {one.oldest_restorable:%F %T}Z")
    output.text(f"grows by about {size_text(one.added_bytes_per_day)} a day")
    if one.restore_bytes is not None:
        took = ""
        if one.restore_seconds is not None:
            took = f", about {max(one.restore_seconds, 1):.0f} s at the speed of the last full"
        output.text(f"a restore fetches {size_text(one.restore_bytes)}{took}")
    if one.slot is not None and one.slot.exists:
        lag = "unknown" if one.slot.lag_bytes is None else size_text(one.slot.lag_bytes)
        safe = "" if one.slot.safe_bytes is None else f", {size_text(one.slot.safe_bytes)} left"
        output.text(f"slot {one.slot.name}: {one.slot.wal_status}, holds {lag}{safe}")
    if not one.server_was_asked:
        output.text("the server was not asked; this is what the vault knows")
