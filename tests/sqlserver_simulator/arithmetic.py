"""Operators on values: types of results, arithmetic, LIKE."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from . import sqltypes as t
from .errors import SqlError, not_modelled
from .sqltypes import SqlType
from .values import convert

ORDER = {
    "=": frozenset({0}), "<>": frozenset({-1, 1}), "<": frozenset({-1}), ">": frozenset({1}),
    "<=": frozenset({-1, 0}), ">=": frozenset({0, 1}),
}  # fmt: skip


PRECEDENCE = [
    "sql_variant",
    "datetimeoffset",
    "datetime2",
    "datetime",
    "date",
    "float",
    "real",
    "decimal",
    "bigint",
    "int",
    "smallint",
    "tinyint",
    "bit",
    "uniqueidentifier",
    "nvarchar",
    "nchar",
    "varchar",
    "char",
    "varbinary",
]


def common(kinds: list[SqlType]) -> SqlType:
    """The type of CASE, COALESCE and arithmetic: the highest in precedence, the longest text."""
    best = min(kinds, key=lambda kind: PRECEDENCE.index(kind.kind))
    if best.is_text:
        wide = best.kind in {"nvarchar", "nchar"}
        sizes = [
            kind.length * 2 if wide and kind.kind in {"varchar", "char"} else kind.length
            for kind in kinds
            if kind.is_text
        ]
        return SqlType(best.kind, -1 if min(sizes) < 0 else max(sizes))
    return best


def arithmetic_type(operator: str, left: SqlType, right: SqlType) -> SqlType:
    if operator == "+" and left.is_text and right.is_text:
        wide = "n" in left.kind[0] or "n" in right.kind[0]
        if min(left.length, right.length) < 0:
            return t.NVARCHAR_MAX
        size = sum(
            each.length * 2 if wide and each.kind[0] != "n" else each.length
            for each in (left, right)
        )
        return SqlType("nvarchar" if wide else "varchar", min(size, 8000))
    kind = common([left, right])
    if kind.kind == "decimal":
        scale = max(left.scale, right.scale)
        return t.decimal(38, max(scale, 6) if operator == "/" else scale)
    return kind


def arithmetic(operator: str, one: Any, two: Any, kind: SqlType) -> Any:
    if operator == "+" and isinstance(one, str) and isinstance(two, str):
        return one + two
    one, two = convert(one, kind), convert(two, kind)
    if operator == "+":
        return one + two
    if operator == "-":
        return one - two
    if operator == "*":
        return one * two
    if operator in "/%":
        if two == 0:
            raise SqlError(8134, "Divide by zero error encountered.")
        if operator == "/":
            if isinstance(one, (int, Decimal)) and kind.is_integer:
                quotient = abs(one) // abs(two)
                return quotient if (one < 0) == (two < 0) else -quotient
            return one / two
        return one % two
    if operator == "&":
        return one & two
    if operator == "|":
        return one | two
    if operator == "^":
        return one ^ two
    raise not_modelled(f"the operator {operator}")


def like_pattern(pattern: str, escape: str | None) -> re.Pattern[str]:
    out, at = "", 0
    while at < len(pattern):
        letter = pattern[at]
        at += 1
        if escape and letter == escape and at < len(pattern):
            out += re.escape(pattern[at])
            at += 1
        elif letter == "%":
            out += ".*"
        elif letter == "_":
            out += "."
        elif letter == "[" and "]" in pattern[at:]:
            end = pattern.index("]", at + 1)
            body = pattern[at:end]
            negated = body.startswith("^")
            inner = body[1:] if negated else body
            inner = inner.replace("\\", r"\\").replace("[", r"\[")
            out += f"[{'^' if negated else ''}{inner}]"
            at = end + 1
        else:
            out += re.escape(letter)
    return re.compile(out, re.IGNORECASE | re.DOTALL)
