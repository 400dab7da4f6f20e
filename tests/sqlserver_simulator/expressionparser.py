"""Grammar of expressions, by recursive descent ([D] Transact-SQL reference, pages
"Expressions" and "Search condition")."""

from __future__ import annotations

from decimal import Decimal

from . import sqltypes as t
from . import syntax as s
from .cursor import TokenCursor
from .errors import not_modelled

_COMPARISONS = frozenset({"=", "<>", "!=", "<", ">", "<=", ">="})


class ExpressionParser(TokenCursor):
    """Expressions and conditions."""

    def query(self) -> s.Query:
        """A query inside an expression; the grammar of queries comes on top of this one."""
        raise NotImplementedError

    # types -------------------------------------------------------------------------------------
    def type(self) -> t.SqlType:
        if self.token.upper == "SYS" and self.peek().text == ".":
            self.at += 2
        word = self.name().lower()
        arguments: list[int] = []
        if self.take("("):
            while not self.take(")"):
                arguments.append(-1 if self.take("MAX") else self.integer())
                self.take(",")
        first = arguments[0] if arguments else None
        fixed = {
            "int": t.INT, "integer": t.INT, "bigint": t.BIGINT, "smallint": t.SMALLINT,
            "tinyint": t.TINYINT, "bit": t.BIT, "real": t.REAL, "float": t.FLOAT,
            "uniqueidentifier": t.GUID, "datetime": t.DATETIME, "date": t.DATE,
            "sysname": t.SYSNAME, "smalldatetime": t.DATETIME, "sql_variant": t.SQL_VARIANT,
        }  # fmt: skip
        if word in fixed:
            return fixed[word]
        if word in {"nvarchar", "nchar"}:
            length = 30 if first is None else first
            return t.SqlType(word, -1 if length < 0 else length * 2)
        if word in {"varchar", "char", "varbinary"}:
            return t.SqlType(word, 30 if first is None else first)
        if word in {"decimal", "numeric"}:
            scale = arguments[1] if len(arguments) > 1 else 0
            return t.decimal(18 if first is None else first, scale)
        if word in {"datetime2", "datetimeoffset"}:
            return t.DATETIME2 if word == "datetime2" else t.DATETIMEOFFSET
        raise not_modelled(f"the type {word}")

    # expressions -------------------------------------------------------------------------------
    def condition(self) -> s.Expression:
        left = self._and()
        while self.take("OR"):
            left = s.Binary("OR", left, self._and())
        return left

    def _and(self) -> s.Expression:
        left = self._not()
        while self.take("AND"):
            left = s.Binary("AND", left, self._not())
        return left

    def _not(self) -> s.Expression:
        if self.take("NOT"):
            return s.Unary("NOT", self._not())
        return self._comparison()

    def _comparison(self) -> s.Expression:
        if self.is_word("EXISTS"):
            self.advance()
            self.expect("(")
            query = self.query()
            self.expect(")")
            return s.Exists(query)
        left = self.expression()
        while True:
            if self.token.kind == "operator" and self.token.text in _COMPARISONS:
                operator = self.advance().text
                left = s.Binary("<>" if operator == "!=" else operator, left, self.expression())
                continue
            if self.take("IS"):
                negated = self.take("NOT")
                self.expect("NULL")
                left = s.IsNull(left, negated)
                continue
            negated = False
            if self.is_word("NOT") and self.peek().upper in {"IN", "LIKE", "BETWEEN"}:
                self.advance()
                negated = True
            if self.take("IN"):
                left = self._in(left, negated)
            elif self.take("LIKE"):
                pattern = self.expression()
                escape = self.expression() if self.take("ESCAPE") else None
                left = s.Like(left, pattern, escape, negated)
            elif self.take("BETWEEN"):
                low = self.expression()
                self.expect("AND")
                left = s.Between(left, low, self.expression(), negated)
            else:
                return left

    def _in(self, left: s.Expression, negated: bool) -> s.Expression:
        self.expect("(")
        if self.is_word("SELECT") or self.is_word("WITH"):
            query = self.query()
            self.expect(")")
            return s.InQuery(left, query, negated)
        choices = [self.expression()]
        while self.take(","):
            choices.append(self.expression())
        self.expect(")")
        return s.InList(left, tuple(choices), negated)

    def expression(self) -> s.Expression:
        left = self._term()
        while self.token.kind == "operator" and self.token.text in {"+", "-", "&", "|", "^"}:
            operator = self.advance().text
            left = s.Binary(operator, left, self._term())
        return left

    def _term(self) -> s.Expression:
        left = self._factor()
        while self.token.kind == "operator" and self.token.text in {"*", "/", "%"}:
            operator = self.advance().text
            left = s.Binary(operator, left, self._factor())
        return left

    def _factor(self) -> s.Expression:
        if self.token.kind == "operator" and self.token.text in {"-", "+", "~"}:
            return s.Unary(self.advance().text, self._factor())
        found = self._primary()
        while True:
            if self.take("COLLATE"):
                self.name()
            elif self.take("AT", "TIME", "ZONE"):
                found = s.AtTimeZone(found, self._primary())
            else:
                return found

    def _primary(self) -> s.Expression:
        token = self.token
        if token.kind == "string":
            self.advance()
            size = max(len(token.text), 1)
            kind = t.nvarchar(size) if token.wide else t.SqlType("varchar", size)
            return s.Literal(token.text, kind if size <= 4000 else t.NVARCHAR_MAX)
        if token.kind == "number":
            self.advance()
            return _number(token.text)
        if token.kind == "binary":
            self.advance()
            data = bytes.fromhex(token.text[2:].rjust((len(token.text) - 1) // 2 * 2, "0"))
            return s.Literal(data, t.varbinary(max(len(data), 1)))
        if token.kind == "variable":
            self.advance()
            return s.Variable(token.text)
        if self.take("("):
            if self.is_word("SELECT") or self.is_word("WITH"):
                query = self.query()
                self.expect(")")
                return s.Scalar(query)
            inner = self.condition()
            self.expect(")")
            return inner
        if self.take("NULL"):
            return s.Literal(None, t.INT)
        if self.is_word("CASE"):
            return self._case()
        if token.upper in {"CAST", "TRY_CAST"} and self.peek().text == "(":
            self.at += 2
            operand = self.condition()
            self.expect("AS")
            kind = self.type()
            self.expect(")")
            return s.Cast(operand, kind, tries=token.upper == "TRY_CAST")
        if token.upper in {"CONVERT", "TRY_CONVERT"} and self.peek().text == "(":
            self.at += 2
            kind = self.type()
            self.expect(",")
            operand = self.condition()
            style = self.integer() if self.take(",") else None
            self.expect(")")
            return s.Cast(operand, kind, style, token.upper == "TRY_CONVERT")
        if token.upper in {"LEFT", "RIGHT", "CURRENT_TIMESTAMP"} and (
            self.peek().text == "(" or token.upper == "CURRENT_TIMESTAMP"
        ):
            self.advance()
            return self._call(token.text) if self.take("(") else s.Call("CURRENT_TIMESTAMP", ())
        return self._name_or_call()

    def _name_or_call(self) -> s.Expression:
        parts = [self.name()]
        while self.take("."):
            if self.take("*"):
                return s.Star(parts[-1])
            parts.append("" if self.is_word(".") else self.name())
        if self.take("("):
            return self._call(".".join(parts))
        if len(parts) == 1 and parts[0].upper() in {"SYSTEM_USER", "CURRENT_USER", "USER"}:
            return s.Call(parts[0].upper(), ())
        return s.ColumnRef(tuple(parts))

    def _call(self, name: str) -> s.Expression:
        arguments: list[s.Expression] = []
        distinct = self.take("DISTINCT")
        if not self.take(")"):
            while True:
                star = self.is_word("*") and self.peek().text == ")"
                if star:
                    self.advance()
                arguments.append(s.Star(None) if star else self.condition())
                if not self.take(","):
                    break
            self.expect(")")
        window = self._window() if self.take("OVER") else None
        return s.Call(name, tuple(arguments), distinct, window)

    def _window(self) -> s.Window:
        self.expect("(")
        partition: list[s.Expression] = []
        if self.take("PARTITION", "BY"):
            partition.append(self.expression())
            while self.take(","):
                partition.append(self.expression())
        order = self._order_by()
        self.expect(")")
        return s.Window(tuple(partition), order)

    def _case(self) -> s.Expression:
        self.expect("CASE")
        operand = None if self.is_word("WHEN") else self.expression()
        branches = []
        while self.take("WHEN"):
            when = self.condition()
            self.expect("THEN")
            branches.append((when, self.condition()))
        otherwise = self.condition() if self.take("ELSE") else None
        self.expect("END")
        return s.Case(operand, tuple(branches), otherwise)

    def _skip_parentheses(self) -> None:
        self.expect("(")
        depth = 1
        while depth:
            token = self.advance()
            if token.kind == "end":
                raise self.wrong()
            depth += (token.text == "(") - (token.text == ")")


def _number(text: str) -> s.Literal:
    if text.isdigit():
        value = int(text)
        if value < 2**31:
            return s.Literal(value, t.INT)
        return s.Literal(value, t.decimal(max(len(text), 1)))
    if "e" in text.lower():
        return s.Literal(float(text), t.FLOAT)
    scale = len(text.partition(".")[2])
    return s.Literal(Decimal(text), t.decimal(max(len(text) - 1, 1), scale))
