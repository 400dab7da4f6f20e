"""``sqlbak validate``: are the policy files right?"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from sqlbak.cli.output import instant
from sqlbak.cli.session import AsJson, Config, Session, session
from sqlbak.fleet import Fleet, instance_of
from sqlbak.model import Point, PointType
from sqlbak.policy.calendar import Slot, next_slot
from sqlbak.policy.preview import AHEAD, Preview, preview
from sqlbak.policy.schema import Configuration, Policy
from sqlbak.scheduler.catalogs import items_by_name
from sqlbak.scheduler.in_force import policies_in_force
from sqlbak.stored_item import newest_points

__all__ = ["validate"]


def validate(
    context: typer.Context,
    config: Config = None,
    as_json: AsJson = False,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="VAULT",
            help="Show what changes compared with the policies in force in this vault.",
        ),
    ] = None,
) -> None:
    """Check the policy files; show what each instance gets and when it runs next."""
    here = session(context, config, as_json=as_json)
    loaded = here.load()
    if against is not None:
        _preview(here, loaded.configuration, against)
        return
    configuration = loaded.configuration
    now = datetime.now(UTC)
    instances: list[dict[str, Any]] = []
    rows: list[list[str]] = []
    for name in sorted(configuration.instances):
        settings = configuration.instances[name]
        policy = configuration.policy_for(name)
        nexts = {kind.value: _next(policy, kind, now) for kind in PointType}
        instances.append(
            {
                "name": name,
                "engine": settings.engine,
                "policy": settings.policy,
                "vault": policy.vault,
                "timezone": policy.timezone,
                "next": nexts,
            }
        )
        rows.append(
            [
                name,
                settings.engine,
                str(settings.policy),
                policy.vault,
                *(nexts[kind.value] or "-" for kind in PointType),
            ]
        )
    here.output.document(
        {
            "valid": True,
            "files": [str(file) for file in loaded.files],
            "notes": list(loaded.unsupported),
            "instances": instances,
            "notifications": sorted(configuration.notifications),
        }
    )
    here.output.text(f"{len(loaded.files)} file(s) are valid")
    here.output.table(
        ("instance", "engine", "policy", "vault", "next full", "next differential", "next log"),
        rows,
    )
    told = ", ".join(sorted(configuration.notifications)) or "nobody (no notifications:)"
    here.output.text(f"told when protection is at risk: {told}")
    for note in loaded.unsupported:
        here.output.note(f"note: {note}")


def _preview(here: Session, configuration: Configuration, vault_name: str) -> None:
    now = datetime.now(UTC)
    with Fleet(configuration) as fleet:
        fleet.vault_named(vault_name)
        vault = fleet.existing_vault(vault_name)
        known = None if vault is None else policies_in_force(vault.store)
        stored = {} if vault is None else items_by_name(vault)
        since, old = (None, {}) if known is None else known
        here_now = {
            name for name in configuration.instances if fleet.policy(name).vault == vault_name
        }
        names = sorted(
            {*here_now, *old, *(name for name in stored if instance_of(name) in {*here_now, *old})}
            - {instance_of(name) for name in stored if "/" in name}
        )
        found = [
            preview(
                name,
                old.get(instance_of(name)),
                fleet.policy(name) if instance_of(name) in here_now else None,
                newest_points(stored.get(name, [])),
                now,
            )
            for name in names
        ]
    here.output.document(
        {
            "valid": True,
            "against": vault_name,
            "in_force_since": instant(since),
            "days_ahead": AHEAD.days,
            "items": [_preview_document(one) for one in found],
        }
    )
    if since is None:
        here.output.note(
            f"note: no scheduler has left a record of its policies in {vault_name} yet: everything "
            "counts as new"
        )
    for one in found:
        _show_preview(here, one)


def _preview_document(one: Preview) -> dict[str, Any]:
    def slot_documents(slots: tuple[Slot, ...]) -> list[dict[str, Any]]:
        return [
            {"type": slot.kind.value, "slot": slot.identity, "at": instant(slot.instant)}
            for slot in slots
        ]

    def point_ids(points: tuple[Point, ...]) -> list[dict[str, Any]]:
        return [{"id": point.id, "type": point.type.value} for point in points]

    return {
        "item": one.item,
        "gained": slot_documents(one.gained),
        "lost": slot_documents(one.lost),
        "expiring": point_ids(one.expiring),
        "returning": point_ids(one.returning),
    }


def _show_preview(here: Session, one: Preview) -> None:
    output = here.output
    if one.is_nothing:
        output.text(f"{one.item}: nothing changes")
        return
    output.text(f"{one.item}: in the next {AHEAD.days} days")
    for word, found in (("gained", one.gained), ("lost", one.lost)):
        for kind in PointType:
            these = [slot for slot in found if slot.kind is kind]
            if these:
                output.text(f"  {word}: {len(these)} {kind.value}, the first {these[0].identity}")
    for word, points in (("let go", one.expiring), ("kept again", one.returning)):
        for kind in PointType:
            ids = sorted(point.id for point in points if point.type is kind)
            if ids:
                output.text(
                    f"  {word} by retention: {len(ids)} {kind.value}, {ids[0]} to {ids[-1]} "
                    "(this version deletes nothing)"
                )


def _next(policy: Policy, kind: PointType, now: datetime) -> str | None:
    scheduled = {
        PointType.FULL: policy.full,
        PointType.DIFFERENTIAL: policy.differential,
        PointType.LOG: policy.log,
    }
    return None if scheduled[kind] is None else instant(next_slot(policy, kind, now).instant)
