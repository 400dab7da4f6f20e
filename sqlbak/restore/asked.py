"""What a restore is asked for: an instant, the newest state, a position in the log or a recovery
point, as people write them, and how each is planned for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, tzinfo
from functools import partial
from typing import Literal

from sqlbak.errors import UsageError
from sqlbak.model import Catalog, EngineName
from sqlbak.policy.local_time import parse_instant
from sqlbak.restore.chain import LOOSE_RULES, SQL_SERVER_RULES, ChainRules
from sqlbak.restore.planner import (
    LATEST,
    Latest,
    RestorePlan,
    plan,
    plan_to_point,
    plan_to_position,
)
from sqlbak.vault.layout import POINT_ID

__all__ = ["fixed", "is_latest", "planner_of", "rules_of"]

_VAULT_SQL_SERVER_RULES = replace(SQL_SERVER_RULES, uses_copy_only_logs=True)
_POSITION = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")
_SQL_SERVER_POSITION = re.compile(r"(\d{1,10}):(\d{1,10}):(\d{1,5})|(\d{16,25})")


def fixed(plan: RestorePlan, to: str, lineage: str | None) -> tuple[str, str | None]:
    """What was asked for as ``plan`` understood it, so that another plan can only lead to the same
    state, never to what then happens to be the latest. A recovery point's id and a position in the
    log are fixed by themselves."""
    if POINT_ID.fullmatch(to.strip()):
        return to, lineage
    if plan.stop_at is not None:
        to = plan.stop_at.isoformat()
    return to, plan.lineage


def is_latest(to: str) -> bool:
    """Whether the newest state is asked for, whatever it is."""
    return to.strip().lower() == "latest"


def planner_of(
    to: str, zone: tzinfo, lineage: str | None, engine: EngineName
) -> Callable[[Catalog], RestorePlan]:
    """How to plan for what ``to`` means. UsageError and its kin when it means nothing."""
    text = to.strip()
    rules = rules_of(engine)
    if POINT_ID.fullmatch(text):
        if lineage is not None:
            raise UsageError("a recovery point has its lineage: leave out --lineage")
        return partial(plan_to_point, point_id=text, rules=rules)
    if (lsn := _position_in(text, engine)) is not None:
        return partial(plan_to_position, lsn=lsn, lineage=lineage, rules=rules)
    target: datetime | Literal[Latest.LATEST] = (
        LATEST if is_latest(text) else parse_instant(text, zone)
    )
    return partial(plan, to=target, lineage=lineage, rules=rules)


def _position_in(text: str, engine: EngineName) -> int | None:
    """A position in the log as the engine's people write it: ``0/3000148`` (PostgreSQL);
    ``39:1720:1`` or its 25-digit form (SQL Server). None: it is none."""
    if engine is EngineName.SQLSERVER:
        found = _SQL_SERVER_POSITION.fullmatch(text.strip())
        if found is None:
            return None
        if found[4] is not None:
            return int(found[4])
        return int(found[1]) * 10**15 + int(found[2]) * 10**5 + int(found[3])
    position = _POSITION.fullmatch(text.strip())
    return None if position is None else (int(position[1], 16) << 32) | int(position[2], 16)


def rules_of(engine: EngineName) -> ChainRules:
    """What the engine promises of its backups."""
    return _VAULT_SQL_SERVER_RULES if engine is EngineName.SQLSERVER else LOOSE_RULES
