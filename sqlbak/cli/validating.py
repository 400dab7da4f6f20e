"""``sqlbak validate``: are the policy files right?"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import typer

from sqlbak.cli.output import instant
from sqlbak.cli.session import AsJson, Config, session
from sqlbak.model import PointType
from sqlbak.policy.calendar import next_slot
from sqlbak.policy.schema import Policy

__all__ = ["validate"]


def validate(context: typer.Context, config: Config = None, as_json: AsJson = False) -> None:
    """Check the policy files; show what each instance gets and when it runs next."""
    here = session(context, config, as_json=as_json)
    loaded = here.load()
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
        }
    )
    here.output.text(f"{len(loaded.files)} file(s) are valid")
    here.output.table(
        ("instance", "engine", "policy", "vault", "next full", "next differential", "next log"),
        rows,
    )
    for note in loaded.unsupported:
        here.output.note(f"note: {note}")


def _next(policy: Policy, kind: PointType, now: datetime) -> str | None:
    scheduled = {
        PointType.FULL: policy.full,
        PointType.DIFFERENTIAL: policy.differential,
        PointType.LOG: policy.log,
    }
    return None if scheduled[kind] is None else instant(next_slot(policy, kind, now).instant)
