"""A restore plan in words: what is restored in which order, and what is left out and why."""

from __future__ import annotations

import math
import re
from collections import Counter

from sqlbak.model import Point, PointType
from sqlbak.restore.chain import Certainty
from sqlbak.restore.restore_plan import RestorePlan, step_type

__all__ = ["explain"]

_MOST_LINES = 12


def explain(plan: RestorePlan) -> str:
    """Text for people: chosen pieces in order, then the others grouped by reason, with counts."""
    goal = "the end of the last step"
    if plan.stop_at is not None:
        goal = plan.clock.text(plan.stop_at)
    elif plan.stop_lsn is not None:
        goal = f"log position {plan.stop_lsn}"
    lines = [f"restore {plan.item} to {goal} on lineage {plan.lineage} ({plan.certainty.value})"]
    width = len(str(len(plan.steps)))
    cuts = {cut.point_id: cut.lsn for cut in plan.cuts}
    for number, step in _sparse(plan.steps):
        if step is None:
            lines.append(f"  {'…':>{width}}  {number} more logs in between")
            continue
        lines.append(f"  {number:>{width}}  {_step(step, plan, cuts.get(step.id))}")
    lines.append(
        f"{len(plan.steps)} steps, {_size(plan.size_bytes)} to fetch, "
        f"estimated at {_duration(plan.estimated_seconds)}"
    )
    if plan.stop_at is not None:
        stop = "whole" if plan.to_the_end else f"up to {goal}"
        lines.append(f"the last step is applied {stop}; {_proof(plan)}")
    lines += [f"note: {note}" for note in plan.notes]
    if plan.rejected:
        lines.append(f"not used: {len(plan.rejected)} recovery points")
        lines += _grouped(plan)
    return "\n".join(lines)


def _sparse(steps: tuple[Point, ...]) -> list[tuple[int, Point | None]]:
    """Numbered steps; a long run of logs is shown by its beginning and its end."""
    numbered: list[tuple[int, Point | None]] = list(enumerate(steps, 1))
    if len(steps) <= _MOST_LINES:
        return numbered
    head, tail = _MOST_LINES // 2, _MOST_LINES // 2
    return [*numbered[:head], (len(steps) - head - tail, None), *numbered[-tail:]]


def _step(step: Point, plan: RestorePlan, cut: int | None) -> str:
    kind = f"copy-only {step.type.value}" if step.is_copy_only else step_type(step)
    text = f"{kind:<12}  {step.id}  {step.first_lsn}..{step.last_lsn}  {_size(step.size_bytes)}"
    ended = step.covers_until if step.type is PointType.LOG else step.reachable_from
    if ended is not None:
        text += f"  until {plan.clock.text(ended)}"
    return text if cut is None else f"{text}  only up to LSN {cut}"


def _proof(plan: RestorePlan) -> str:
    verb = "proves" if plan.certainty is Certainty.PROVEN else "makes it likely"
    return f"{plan.proven_by} {verb} that nothing before it is missing"


def _grouped(plan: RestorePlan) -> list[str]:
    """One line a reason; numbers inside a reason are left out when several share it."""
    shapes = [re.sub(r"\d+\.\.\d+", "…", rejection.reason) for rejection in plan.rejected]
    counts = Counter(shapes)
    examples = dict(reversed(list(zip(shapes, plan.rejected, strict=True))))
    lines: list[str] = []
    for shape, count in counts.most_common(_MOST_LINES):
        example = examples[shape]
        if count == 1:
            lines.append(f"  {example.point_id}: {example.reason}")
        else:
            lines.append(f"  {count} points: {shape} (such as {example.point_id})")
    if len(counts) > _MOST_LINES:
        lines.append(f"  … and {len(counts) - _MOST_LINES} more reasons; --json lists every point")
    return lines


def _size(size_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
