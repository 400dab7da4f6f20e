"""Expressions compiled to closures over frames, with the SQL type of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from . import sqltypes as t
from . import syntax as s
from .arithmetic import ORDER, arithmetic, arithmetic_type, common, like_pattern
from .errors import SqlError
from .sqltypes import COMPUTED, NULLABLE, Column, SqlType
from .values import compare, convert, fold, to_text

__all__ = ["Compiled", "Compiler", "Frame", "Scope", "compare", "fold"]

# (row of this level, frame of the enclosing query, rows of the group)
Frame = tuple[tuple[Any, ...], Any, Any]
_AGGREGATES = frozenset({"COUNT", "COUNT_BIG", "SUM", "MIN", "MAX", "AVG", "STRING_AGG"})


@dataclass(slots=True)
class Scope:
    """The columns in sight, with their aliases, and those of the enclosing query."""

    columns: list[tuple[str, Column]]
    outer: Scope | None


@dataclass(frozen=True, slots=True)
class Compiled:
    type: SqlType
    value: Callable[[Frame], Any]
    name: str = ""
    flags: int = NULLABLE | COMPUTED


class Functions(Protocol):
    """Scalar functions and variables of a session."""

    def call(self, name: str, arguments: list[Any]) -> Any: ...

    def type_of(self, name: str, arguments: list[SqlType]) -> SqlType: ...

    def variable(self, name: str) -> tuple[SqlType, Callable[[], Any]]: ...

    def query(self, query: s.Query, outer: Scope, frame: Frame) -> t.Rowset: ...

    def in_zone(self, moment: Any, zone: str) -> Any: ...


class Compiler:
    """Turns an expression and a scope into a closure."""

    def __init__(self, functions: Functions) -> None:
        self.functions = functions

    def constant(self, expression: s.Expression) -> Any:
        """The value of an expression without columns."""
        return self.compile(expression, Scope([], None)).value(((), None, None))

    def has_aggregate(self, expression: Any) -> bool:
        if isinstance(expression, s.Call):
            if expression.name.upper() in _AGGREGATES and expression.window is None:
                return True
            return any(self.has_aggregate(each) for each in expression.arguments)
        if isinstance(expression, (s.Query, s.Literal, s.ColumnRef, s.Variable, s.Star)):
            return False
        if isinstance(expression, tuple):
            return any(self.has_aggregate(each) for each in expression)
        if isinstance(expression, s.Expression):
            fields = type(expression).__dataclass_fields__  # type: ignore[attr-defined]
            return any(self.has_aggregate(getattr(expression, name)) for name in fields)
        return False

    def compile(self, node: s.Expression, scope: Scope) -> Compiled:
        found: Compiled = getattr(self, f"_{type(node).__name__.lower()}")(node, scope)
        return found

    # leaves ------------------------------------------------------------------------------------
    def _literal(self, node: s.Literal, scope: Scope) -> Compiled:
        value = node.value
        flags = COMPUTED | (NULLABLE if value is None else 0)
        return Compiled(node.type, lambda _: value, flags=flags)

    def _variable(self, node: s.Variable, scope: Scope) -> Compiled:
        kind, read = self.functions.variable(node.name)
        return Compiled(kind, lambda _: read())

    def _columnref(self, node: s.ColumnRef, scope: Scope) -> Compiled:
        name = node.parts[-1].lower()
        alias = node.parts[-2].lower() if len(node.parts) > 1 else None
        depth, at = 0, scope
        while True:
            hits = [
                index
                for index, (owner, column) in enumerate(at.columns)
                if column.name.lower() == name and (alias is None or owner.lower() == alias)
            ]
            if len(hits) > 1:
                raise SqlError(209, f"Ambiguous column name '{node.parts[-1]}'.")
            if hits:
                break
            if at.outer is None:
                if alias is not None:
                    bound = ".".join(node.parts)
                    raise SqlError(4104, f'The multi-part identifier "{bound}" could not be bound.')
                raise SqlError(207, f"Invalid column name '{node.parts[-1]}'.")
            depth, at = depth + 1, at.outer
        index = hits[0]
        column = at.columns[index][1]
        if depth == 0:
            return Compiled(column.type, lambda f: f[0][index], column.name, column.flags)

        def outer(frame: Frame) -> Any:
            for _ in range(depth):
                frame = frame[1]
            return frame[0][index]

        return Compiled(column.type, outer, column.name, column.flags)

    # calls -------------------------------------------------------------------------------------
    def _call(self, node: s.Call, scope: Scope) -> Compiled:
        name = node.name.upper()
        if node.window is not None:
            return Compiled(t.BIGINT, lambda _: 0)
        if name in _AGGREGATES:
            return self._aggregate(name, node, scope)
        if name in {"DATEADD", "DATEDIFF", "DATEDIFF_BIG", "DATEPART", "DATENAME"}:
            unit = node.arguments[0]
            assert isinstance(unit, s.ColumnRef)
            rest = tuple(node.arguments[1:])
            part = s.Literal(unit.parts[-1].lower(), t.SYSNAME)
            node = s.Call(node.name, (part, *rest))
        arguments = [self.compile(each, scope) for each in node.arguments]
        values = [each.value for each in arguments]
        kinds = [each.type for each in arguments]
        if name in {"COALESCE", "ISNULL"}:
            kind = kinds[0] if name == "ISNULL" else common(kinds)

            def first(frame: Frame) -> Any:
                for each in values:
                    if (found := each(frame)) is not None:
                        return convert(found, kind) if not kind.is_text else found
                return None

            return Compiled(kind, first)
        if name == "IIF":
            condition, yes, no = values
            return Compiled(common(kinds[1:]), lambda f: yes(f) if condition(f) is True else no(f))
        if name == "NULLIF":
            one, two = values

            def null_if(frame: Frame) -> Any:
                a, b = one(frame), two(frame)
                return None if a is not None and b is not None and compare(a, b) == 0 else a

            return Compiled(kinds[0], null_if)
        kind = self.functions.type_of(node.name, kinds)
        call = self.functions.call
        return Compiled(kind, lambda f: call(node.name, [each(f) for each in values]))

    def _aggregate(self, name: str, node: s.Call, scope: Scope) -> Compiled:
        argument = node.arguments[0]
        if isinstance(argument, s.Star):
            inner, kind = (lambda _: 1), t.INT
        else:
            compiled = self.compile(argument, scope)
            inner, kind = compiled.value, compiled.type
        separator = self.constant(node.arguments[1]) if name == "STRING_AGG" else ""

        def total(frame: Frame) -> Any:
            values = [inner((row, frame[1], None)) for row in frame[2] or ()]
            values = [value for value in values if value is not None]
            if node.distinct:
                values = list({fold(value): value for value in values}.values())
            if name in {"COUNT", "COUNT_BIG"}:
                return len(values)
            if not values:
                return None
            if name == "STRING_AGG":
                return separator.join(map(to_text, values))
            if name == "SUM":
                return sum(values)
            if name == "AVG":
                mean = sum(values) / len(values)
                return int(mean) if kind.is_integer else mean
            best = values[0]
            for value in values[1:]:
                order = compare(value, best)
                if (order > 0) == (name == "MAX") and order:
                    best = value
            return best

        if name == "COUNT":
            kind = t.INT
        elif name == "COUNT_BIG" or (name == "SUM" and kind.kind == "bigint"):
            kind = t.BIGINT
        elif name == "STRING_AGG":
            kind = t.NVARCHAR_MAX
        elif name == "SUM" and kind.kind == "decimal":
            kind = t.decimal(38, kind.scale)
        elif name in {"SUM", "AVG"} and kind.is_integer:
            kind = t.INT
        return Compiled(kind, total)

    # operators ---------------------------------------------------------------------------------
    def _unary(self, node: s.Unary, scope: Scope) -> Compiled:
        inner = self.compile(node.operand, scope)
        value = inner.value
        if node.operator == "NOT":
            return Compiled(t.BIT, lambda f: None if (v := value(f)) is None else not v)
        if node.operator == "-":
            return Compiled(inner.type, lambda f: None if (v := value(f)) is None else -v)
        if node.operator == "~":
            return Compiled(inner.type, lambda f: None if (v := value(f)) is None else ~v)
        return inner

    def _binary(self, node: s.Binary, scope: Scope) -> Compiled:
        left, right = self.compile(node.left, scope), self.compile(node.right, scope)
        a, b = left.value, right.value
        operator = node.operator
        if operator == "AND":

            def both(f: Frame) -> Any:
                one = a(f)
                if one is False:
                    return False
                two = b(f)
                return False if two is False else None if one is None or two is None else True

            return Compiled(t.BIT, both)
        if operator == "OR":

            def either(f: Frame) -> Any:
                one = a(f)
                if one is True:
                    return True
                two = b(f)
                return True if two is True else None if one is None or two is None else False

            return Compiled(t.BIT, either)
        if operator in ORDER:
            accepted = ORDER[operator]

            def compared(f: Frame) -> Any:
                one, two = a(f), b(f)
                return None if one is None or two is None else compare(one, two) in accepted

            return Compiled(t.BIT, compared)
        kind = arithmetic_type(operator, left.type, right.type)

        def computed(f: Frame) -> Any:
            one, two = a(f), b(f)
            return None if one is None or two is None else arithmetic(operator, one, two, kind)

        return Compiled(kind, computed)

    def _isnull(self, node: s.IsNull, scope: Scope) -> Compiled:
        value = self.compile(node.operand, scope).value
        negated = node.negated
        return Compiled(t.BIT, lambda f: (value(f) is None) != negated)

    def _membership(
        self, value: Callable[[Frame], Any], choices: Callable[[Frame], list[Any]], negated: bool
    ) -> Compiled:
        def contained(f: Frame) -> Any:
            wanted = value(f)
            if wanted is None:
                return None
            found = choices(f)
            if any(each is not None and compare(wanted, each) == 0 for each in found):
                return not negated
            return None if any(each is None for each in found) else negated

        return Compiled(t.BIT, contained)

    def _inlist(self, node: s.InList, scope: Scope) -> Compiled:
        value = self.compile(node.operand, scope).value
        choices = [self.compile(each, scope).value for each in node.choices]
        return self._membership(value, lambda f: [each(f) for each in choices], node.negated)

    def _inquery(self, node: s.InQuery, scope: Scope) -> Compiled:
        value = self.compile(node.operand, scope).value
        query = self.functions.query

        def choices(f: Frame) -> list[Any]:
            return [row[0] for row in query(node.query, scope, f).rows]

        return self._membership(value, choices, node.negated)

    def _exists(self, node: s.Exists, scope: Scope) -> Compiled:
        query = self.functions.query
        return Compiled(t.BIT, lambda f: bool(query(node.query, scope, f).rows))

    def _scalar(self, node: s.Scalar, scope: Scope) -> Compiled:
        query = self.functions.query

        def only(f: Frame) -> Any:
            rows = query(node.query, scope, f).rows
            if len(rows) > 1:
                raise SqlError(
                    512,
                    "Subquery returned more than 1 value. This is not permitted when the subquery "
                    "follows =, !=, <, <= , >, >= or when the subquery is used as an expression.",
                )
            return rows[0][0] if rows else None

        sample = query(node.query, scope, _blank(scope))
        return Compiled(sample.columns[0].type, only)

    def _like(self, node: s.Like, scope: Scope) -> Compiled:
        value = self.compile(node.operand, scope).value
        pattern = self.compile(node.pattern, scope).value
        escape = self.compile(node.escape, scope).value if node.escape else None
        negated = node.negated

        def liked(f: Frame) -> Any:
            text, wanted = value(f), pattern(f)
            if text is None or wanted is None:
                return None
            rule = like_pattern(wanted, escape(f) if escape else None)
            return (rule.fullmatch(to_text(text)) is not None) != negated

        return Compiled(t.BIT, liked)

    def _between(self, node: s.Between, scope: Scope) -> Compiled:
        inside = s.Binary(
            "AND",
            s.Binary(">=", node.operand, node.low),
            s.Binary("<=", node.operand, node.high),
        )
        return self.compile(s.Unary("NOT", inside) if node.negated else inside, scope)

    def _case(self, node: s.Case, scope: Scope) -> Compiled:
        branches = [
            (
                self.compile(
                    when if node.operand is None else s.Binary("=", node.operand, when), scope
                ).value,
                self.compile(then, scope),
            )
            for when, then in node.branches
        ]
        otherwise = self.compile(node.otherwise, scope) if node.otherwise else None
        kinds = [then.type for _, then in branches] + ([otherwise.type] if otherwise else [])

        def chosen(f: Frame) -> Any:
            for when, then in branches:
                if when(f) is True:
                    return then.value(f)
            return otherwise.value(f) if otherwise else None

        return Compiled(common(kinds), chosen)

    def _cast(self, node: s.Cast, scope: Scope) -> Compiled:
        value = self.compile(node.operand, scope).value

        def cast(f: Frame) -> Any:
            try:
                return convert(value(f), node.type, node.style)
            except SqlError:
                if node.tries:
                    return None
                raise

        return Compiled(node.type, cast)

    def _attimezone(self, node: s.AtTimeZone, scope: Scope) -> Compiled:
        value = self.compile(node.operand, scope).value
        zone = self.compile(node.zone, scope).value
        shift = self.functions.in_zone
        return Compiled(t.DATETIMEOFFSET, lambda f: shift(value(f), zone(f)))


def _blank(scope: Scope) -> Frame:
    """A frame of NULLs, to learn the type of a subquery."""
    outer = _blank(scope.outer) if scope.outer else None
    return ((None,) * len(scope.columns), outer, None)
