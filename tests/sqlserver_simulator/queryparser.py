"""Grammar of queries ([D] Transact-SQL reference, pages "SELECT" and "FROM")."""

from __future__ import annotations

from . import syntax as s
from .cursor import RESERVED
from .errors import SqlError, not_modelled
from .expressionparser import ExpressionParser
from .lexer import Token


class QueryParser(ExpressionParser):
    """SELECT and everything in it."""

    def query(self) -> s.Query:
        ctes: list[tuple[str, tuple[str, ...], s.Query]] = []
        if self.take("WITH"):
            while True:
                name = self.name()
                columns: list[str] = []
                if self.take("("):
                    columns = [self.name()]
                    while self.take(","):
                        columns.append(self.name())
                    self.expect(")")
                self.expect("AS")
                self.expect("(")
                ctes.append((name, tuple(columns), self.query()))
                self.expect(")")
                if not self.take(","):
                    break
        parts, operators = [self._select()], []
        while self.token.upper in {"UNION", "EXCEPT", "INTERSECT"}:
            operator = self.advance().upper
            operators.append("UNION ALL" if self.take("ALL") else operator)
            parts.append(self._select())
        order = self._order_by()
        offset = fetch = None
        if order and self.take("OFFSET"):
            offset = self.expression()
            self.advance()  # ROWS
            if self.take("FETCH"):
                self.advance()  # NEXT
                fetch = self.expression()
                self.advance()  # ROWS
                self.expect("ONLY")
        if self.take("OPTION"):
            self._skip_parentheses()
        if self.is_word("FOR") and self.peek().upper in {"XML", "JSON"}:
            raise not_modelled(f"FOR {self.peek().upper}")
        return s.Query(tuple(parts), tuple(operators), order, tuple(ctes), offset, fetch)

    def _order_by(self) -> tuple[tuple[s.Expression, bool], ...]:
        found = []
        if self.take("ORDER", "BY"):
            while True:
                key = self.expression()
                descending = self.take("DESC")
                if not descending:
                    self.take("ASC")
                found.append((key, descending))
                if not self.take(","):
                    break
        return tuple(found)

    def _select(self) -> s.Select:
        if self.take("("):
            inner = self._select()
            self.expect(")")
            return inner
        self.expect("SELECT")
        distinct = self.take("DISTINCT")
        if not distinct:
            self.take("ALL")
        top: s.Expression | None = None
        if self.take("TOP"):
            if self.take("("):
                top = self.expression()
                self.expect(")")
            else:
                top = self._primary()
        items, assigns = [], []
        while True:
            if self.token.kind == "variable" and self.peek().text == "=":
                assigns.append(self.advance().text)
                self.advance()
                items.append(s.Item(self.condition(), None))
            else:
                items.append(self._item())
            if not self.take(","):
                break
        if assigns and len(assigns) != len(items):
            raise SqlError(
                141,
                "A SELECT statement that assigns a value to a variable must not be combined with "
                "data-retrieval operations.",
                15,
            )
        into = self.parts() if self.take("INTO") else ()
        source = self._from() if self.take("FROM") else None
        where = self.condition() if self.take("WHERE") else None
        group: list[s.Expression] = []
        if self.take("GROUP", "BY"):
            group.append(self.expression())
            while self.take(","):
                group.append(self.expression())
        having = self.condition() if self.take("HAVING") else None
        return s.Select(
            tuple(items), source, where, tuple(group), having, distinct, top, tuple(assigns), into
        )

    def _item(self) -> s.Item:
        if self.take("*"):
            return s.Item(s.Star(None), None)
        if self.token.kind in {"name", "word"} and self.peek().text == "=":
            alias = self.name()
            self.advance()
            return s.Item(self.condition(), alias)
        expression = self.condition()
        if isinstance(expression, s.Star):
            return s.Item(expression, None)
        return s.Item(expression, self._alias(strings=True))

    def _alias(self, *, strings: bool = False) -> str | None:
        explicit = self.take("AS")
        token = self.token
        if strings and token.kind == "string":
            return self.advance().text
        if token.kind == "name" or (
            token.kind == "word" and token.upper not in RESERVED and not _starts_clause(token)
        ):
            return self.advance().text
        if explicit:
            raise self.wrong()
        return None

    def _from(self) -> s.Source:
        left = self._joined()
        while self.take(","):
            left = s.Join("cross", left, self._joined(), None)
        return left

    def _joined(self) -> s.Source:
        left = self._source()
        while True:
            if self.take("CROSS", "JOIN"):
                left = s.Join("cross", left, self._source(), None)
                continue
            if self.take("CROSS", "APPLY") or self.is_word("OUTER", "APPLY"):
                kind = "outer apply" if self.take("OUTER", "APPLY") else "cross apply"
                left = s.Join(kind, left, self._source(), None)
                continue
            kind = ""
            if self.take("JOIN") or self.take("INNER", "JOIN"):
                kind = "inner"
            elif self.token.upper in {"LEFT", "RIGHT", "FULL"}:
                kind = self.advance().text.lower()
                self.take("OUTER")
                self.expect("JOIN")
            if not kind:
                return left
            right = self._source()
            self.expect("ON")
            left = s.Join(kind, left, right, self.condition())

    def _source(self) -> s.Source:
        if self.take("("):
            if self.take("VALUES"):
                rows = self.value_rows()
                self.expect(")")
                self.take("AS")
                alias = self.name()
                columns = [self.name()] if self.take("(") else []
                while columns and self.take(","):
                    columns.append(self.name())
                self.expect(")")
                return s.Values(rows, alias, tuple(columns))
            if not (self.is_word("SELECT") or self.is_word("WITH")):
                inner = self._joined()
                self.expect(")")
                return inner
            query = self.query()
            self.expect(")")
            self.take("AS")
            return s.Derived(query, self.name())
        parts = self.parts()
        if self.take("("):
            call = self._call(".".join(parts))
            assert isinstance(call, s.Call)
            return s.TableFunction(parts, call.arguments, self._alias())
        alias = self._alias()
        if self.is_word("WITH") and self.peek().text == "(":
            self.advance()
            self._skip_parentheses()
        return s.Table(parts, alias)

    def value_rows(self) -> tuple[tuple[s.Expression, ...], ...]:
        rows = []
        while True:
            self.expect("(")
            row = [self.condition()]
            while self.take(","):
                row.append(self.condition())
            self.expect(")")
            rows.append(tuple(row))
            if not self.take(","):
                return tuple(rows)


def _starts_clause(token: Token) -> bool:
    return token.upper in {"OFFSET", "APPLY", "GO", "ROWS", "SAVE", "AT", "OVER"}
