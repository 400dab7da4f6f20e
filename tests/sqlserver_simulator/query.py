"""Running queries: joins, grouping, windows of ROW_NUMBER, set operators and ordering.

Rows of a SELECT are flat tuples of all its sources; a frame is (row, outer frame, group).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from . import syntax as s
from .errors import SqlError
from .expressions import Compiled, Compiler, Frame, Scope, compare, fold
from .sqltypes import NULLABLE, Column, Rowset


class Tables(Protocol):
    """Where named sources come from."""

    def table(self, parts: tuple[str, ...]) -> Rowset: ...

    def function_table(self, parts: tuple[str, ...], arguments: list[Any]) -> Rowset: ...


@dataclass(slots=True)
class _Input:
    scope: Scope
    rows: Callable[[Frame | None], list[tuple[Any, ...]]]


class QueryRunner:
    """Runs one query tree for one session."""

    def __init__(self, compiler: Compiler, tables: Tables) -> None:
        self.compiler = compiler
        self.tables = tables
        self.ctes: dict[str, Rowset] = {}

    def run(self, query: s.Query, outer: Scope | None = None, frame: Frame | None = None) -> Rowset:
        """The result of a query; ``outer`` and ``frame`` for correlated ones."""
        saved = dict(self.ctes)
        try:
            for name, names, inner in query.ctes:
                rowset = self.run(inner)
                if names:
                    rowset = Rowset(
                        [
                            Column(new, column.type, column.flags)
                            for new, column in zip(names, rowset.columns, strict=True)
                        ],
                        rowset.rows,
                    )
                self.ctes[name.lower()] = rowset
            if len(query.parts) == 1:
                return self._select(query.parts[0], query, outer, frame)
            return self._combined(query, outer, frame)
        finally:
            self.ctes = saved

    def _combined(self, query: s.Query, outer: Scope | None, frame: Frame | None) -> Rowset:
        bare = s.Query(())
        result = self._select(query.parts[0], bare, outer, frame)
        for operator, part in zip(query.operators, query.parts[1:], strict=True):
            other = self._select(part, bare, outer, frame)
            if len(other.columns) != len(result.columns):
                raise SqlError(
                    205,
                    "All queries combined using a UNION, INTERSECT or EXCEPT operator must have an "
                    "equal number of expressions in their target lists.",
                )
            keys = {tuple(map(fold, row)) for row in other.rows}
            if operator == "UNION ALL":
                rows = result.rows + other.rows
            elif operator == "UNION":
                rows = _distinct(result.rows + other.rows)
            elif operator == "EXCEPT":
                rows = _distinct(r for r in result.rows if tuple(map(fold, r)) not in keys)
            else:
                rows = _distinct(r for r in result.rows if tuple(map(fold, r)) in keys)
            result = Rowset(result.columns, rows)
        scope = Scope([("", column) for column in result.columns], outer)
        keys_of = [self._order_key(key, result.columns, scope) for key, _ in query.order]
        return Rowset(
            result.columns,
            _ordered(
                result.rows, query.order, lambda row: [k((row, frame, None)) for k in keys_of]
            ),
        )

    def _order_key(
        self, key: s.Expression, columns: list[Column] | Any, scope: Scope
    ) -> Callable[[Frame], Any]:
        if isinstance(key, s.Literal) and isinstance(key.value, int):
            index = key.value - 1
            return lambda frame: frame[0][index]
        return self.compiler.compile(key, scope).value

    # one SELECT --------------------------------------------------------------------------------
    def _select(
        self, select: s.Select, query: s.Query, outer: Scope | None, frame: Frame | None
    ) -> Rowset:
        source = (
            self._source(select.source, outer, frame)
            if select.source is not None
            else _Input(Scope([], outer), lambda _: [()])
        )
        scope = source.scope
        rows = source.rows(frame)
        if select.where is not None:
            where = self.compiler.compile(select.where, scope).value
            rows = [row for row in rows if where((row, frame, None)) is True]
        items = self._expanded(select, scope)
        frames = self._grouped(select, scope, items, query, rows, frame)
        compiled = [self.compiler.compile(item.expression, scope) for item in items]
        if any(isinstance(item.expression, s.Call) and item.expression.window for item in items):
            self._number_rows(items, compiled, scope, frames)
        columns = [
            Column(item.alias or found.name or "", found.type, found.flags)
            for item, found in zip(items, compiled, strict=True)
        ]
        aliases = {
            item.alias.lower(): index for index, item in enumerate(items) if item.alias is not None
        }
        order = [self._ordering(key, compiled, aliases, scope) for key, _ in query.order]
        pairs = [
            (tuple(found.value(each) for found in compiled), [key(each) for key in order])
            for each in frames
        ]
        if select.distinct:
            seen: set[Any] = set()
            pairs = [
                pair
                for pair in pairs
                if not ((k := tuple(map(fold, pair[0]))) in seen or seen.add(k))
            ]
        if order:
            directions = [descending for _, descending in query.order]
            pairs.sort(key=lambda pair: _sort_key(pair[1], directions))
        result = [row for row, _ in pairs]
        return Rowset(columns, self._limited(select, query, result))

    def _limited(self, select: s.Select, query: s.Query, rows: list[Any]) -> list[Any]:
        if select.top is not None:
            rows = rows[: int(self.compiler.constant(select.top))]
        if query.offset is not None:
            rows = rows[int(self.compiler.constant(query.offset)) :]
        if query.fetch is not None:
            rows = rows[: int(self.compiler.constant(query.fetch))]
        return rows

    def _expanded(self, select: s.Select, scope: Scope) -> list[s.Item]:
        items: list[s.Item] = []
        for item in select.items:
            if not isinstance(item.expression, s.Star):
                items.append(item)
                continue
            wanted = item.expression.qualifier
            for alias, column in scope.columns:
                if wanted is None or alias.lower() == wanted.lower():
                    name = (alias, column.name) if alias else (column.name,)
                    items.append(s.Item(s.ColumnRef(name), None))
        return items

    def _ordering(
        self,
        key: s.Expression,
        compiled: list[Compiled],
        aliases: dict[str, int],
        scope: Scope,
    ) -> Callable[[Frame], Any]:
        if isinstance(key, s.Literal) and isinstance(key.value, int):
            return compiled[key.value - 1].value
        if isinstance(key, s.ColumnRef) and len(key.parts) == 1:
            index = aliases.get(key.parts[0].lower())
            if index is not None:
                return compiled[index].value
        return self.compiler.compile(key, scope).value

    def _grouped(
        self,
        select: s.Select,
        scope: Scope,
        items: list[s.Item],
        query: s.Query,
        rows: list[tuple[Any, ...]],
        frame: Frame | None,
    ) -> list[Frame]:
        expressions = [item.expression for item in items] + [key for key, _ in query.order]
        if select.having is not None:
            expressions.append(select.having)
        aggregates = any(self.compiler.has_aggregate(each) for each in expressions)
        if not select.group and not aggregates:
            return [(row, frame, None) for row in rows]
        keys = [self.compiler.compile(each, scope).value for each in select.group]
        groups: dict[Any, list[tuple[Any, ...]]] = {}
        for row in rows:
            groups.setdefault(tuple(fold(k((row, frame, None))) for k in keys), []).append(row)
        if not select.group and not groups:
            groups[()] = []
        width = len(scope.columns)
        frames: list[Frame] = [
            (group[0] if group else (None,) * width, frame, group) for group in groups.values()
        ]
        if select.having is not None:
            having = self.compiler.compile(select.having, scope).value
            frames = [each for each in frames if having(each) is True]
        return frames

    def _number_rows(
        self, items: list[s.Item], compiled: list[Compiled], scope: Scope, frames: list[Frame]
    ) -> None:
        for index, item in enumerate(items):
            call = item.expression
            if not isinstance(call, s.Call) or call.window is None:
                continue
            if call.name.upper() not in {"ROW_NUMBER", "RANK"}:
                from .errors import not_modelled

                raise not_modelled(f"{call.name} OVER")
            part = [self.compiler.compile(each, scope).value for each in call.window.partition]
            order = [self.compiler.compile(each, scope).value for each, _ in call.window.order]
            directions = [descending for _, descending in call.window.order]
            numbers: dict[int, int] = {}
            counters: dict[Any, int] = {}
            ranked = sorted(frames, key=lambda f: _sort_key([key(f) for key in order], directions))
            for each in ranked:
                key = tuple(fold(p(each)) for p in part)
                counters[key] = counters.get(key, 0) + 1
                numbers[id(each)] = counters[key]
            found = compiled[index]
            compiled[index] = Compiled(
                found.type, functools.partial(_number_of, numbers), found.name, found.flags
            )

    # sources -----------------------------------------------------------------------------------
    def _source(self, source: s.Source, outer: Scope | None, frame: Frame | None) -> _Input:
        if isinstance(source, s.Table):
            rowset = None
            if len(source.parts) == 1:
                rowset = self.ctes.get(source.parts[0].lower())
            rowset = rowset or self.tables.table(source.parts)
            return _fixed(rowset, source.alias or source.parts[-1], outer)
        if isinstance(source, s.Derived):
            return _fixed(self.run(source.query, outer, frame), source.alias, outer)
        if isinstance(source, s.Values):
            rows = [tuple(self.compiler.constant(each) for each in row) for row in source.rows]
            kinds = [self.compiler.compile(each, Scope([], None)).type for each in source.rows[0]]
            columns = [Column(n, k, NULLABLE) for n, k in zip(source.columns, kinds, strict=True)]
            return _fixed(Rowset(columns, rows), source.alias, outer)
        if isinstance(source, s.TableFunction):
            values = [
                self.compiler.compile(each, outer or Scope([], None)).value(
                    frame or ((), None, None)
                )
                for each in source.arguments
            ]
            rowset = self.tables.function_table(source.parts, values)
            return _fixed(rowset, source.alias or source.parts[-1], outer)
        assert isinstance(source, s.Join)
        return self._join(source, outer, frame)

    def _join(self, join: s.Join, outer: Scope | None, frame: Frame | None) -> _Input:
        left = self._source(join.left, outer, frame)
        left_rows = left.rows(frame)
        if join.kind.endswith("apply"):
            return self._apply(join, left, left_rows, outer, frame)
        right = self._source(join.right, outer, frame)
        right_rows = right.rows(frame)
        scope = Scope(left.scope.columns + right.scope.columns, outer)
        if join.on is None:
            rows = [a + b for a in left_rows for b in right_rows]
            return _Input(scope, lambda _: rows)
        on = self.compiler.compile(join.on, scope).value
        index = self._hash(join.on, left.scope, right.scope, right_rows, frame)
        rows = []
        nothing_right = (None,) * len(right.scope.columns)
        matched: set[int] = set()
        for a in left_rows:
            hit = False
            for number, b in index(a) if index else enumerate(right_rows):
                if on((a + b, frame, None)) is True:
                    hit = True
                    matched.add(number)
                    rows.append(a + b)
            if not hit and join.kind in {"left", "full"}:
                rows.append(a + nothing_right)
        if join.kind in {"right", "full"}:
            nothing_left = (None,) * len(left.scope.columns)
            rows += [nothing_left + b for n, b in enumerate(right_rows) if n not in matched]
        return _Input(scope, lambda _: rows)

    def _hash(
        self,
        on: s.Expression,
        left: Scope,
        right: Scope,
        right_rows: list[tuple[Any, ...]],
        frame: Frame | None,
    ) -> Callable[[tuple[Any, ...]], Iterable[tuple[int, tuple[Any, ...]]]] | None:
        """An index on the first equality of an ON clause, so that 500 databases stay quick."""
        for each in _conjuncts(on):
            if not (isinstance(each, s.Binary) and each.operator == "="):
                continue
            for one, two in ((each.left, each.right), (each.right, each.left)):
                try:
                    a = self.compiler.compile(one, Scope(left.columns, None)).value
                    b = self.compiler.compile(two, Scope(right.columns, None)).value
                except SqlError:
                    continue
                if not isinstance(one, s.ColumnRef) or not isinstance(two, s.ColumnRef):
                    continue
                table: dict[Any, list[tuple[int, tuple[Any, ...]]]] = {}
                for number, row in enumerate(right_rows):
                    table.setdefault(fold(b((row, frame, None))), []).append((number, row))
                return lambda row, a=a: table.get(fold(a((row, frame, None))), ())  # type: ignore[misc]
        return None

    def _apply(
        self,
        join: s.Join,
        left: _Input,
        left_rows: list[tuple[Any, ...]],
        outer: Scope | None,
        frame: Frame | None,
    ) -> _Input:
        inner_scope = Scope(left.scope.columns, outer)
        rows: list[tuple[Any, ...]] = []
        columns: list[tuple[str, Column]] | None = None
        samples = left_rows or [(None,) * len(left.scope.columns)]
        for row in samples:
            right = self._source(join.right, inner_scope, (row, frame, None))
            columns = right.scope.columns
            found = right.rows((row, frame, None)) if left_rows else []
            if found:
                rows += [row + each for each in found]
            elif join.kind == "outer apply" and left_rows:
                rows.append(row + (None,) * len(columns))
        return _Input(Scope(left.scope.columns + (columns or []), outer), lambda _: rows)


def _number_of(numbers: dict[int, int], frame: Frame) -> int:
    return numbers[id(frame)]


def _fixed(rowset: Rowset, alias: str, outer: Scope | None) -> _Input:
    rows = rowset.rows
    return _Input(Scope([(alias, column) for column in rowset.columns], outer), lambda _: rows)


def _conjuncts(expression: s.Expression) -> list[s.Expression]:
    if isinstance(expression, s.Binary) and expression.operator == "AND":
        return _conjuncts(expression.left) + _conjuncts(expression.right)
    return [expression]


def _distinct(rows: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    found: dict[Any, tuple[Any, ...]] = {}
    for row in rows:
        found.setdefault(tuple(map(fold, row)), row)
    return list(found.values())


def _ordered(
    rows: list[tuple[Any, ...]],
    order: tuple[tuple[s.Expression, bool], ...],
    keys: Callable[[tuple[Any, ...]], list[Any]],
) -> list[tuple[Any, ...]]:
    if not order:
        return rows
    directions = [descending for _, descending in order]
    return sorted(rows, key=lambda row: _sort_key(keys(row), directions))


def _sort_key(values: list[Any], directions: list[bool]) -> list[Any]:
    """NULLs sort lowest; text without regard to case."""

    def order(one: tuple[Any, bool], two: tuple[Any, bool]) -> int:
        (a, descending), (b, _) = one, two
        found = (a is not None) - (b is not None) if a is None or b is None else compare(a, b)
        return -found if descending else found

    by = functools.cmp_to_key(order)
    return [by(pair) for pair in zip(values, directions, strict=True)]
