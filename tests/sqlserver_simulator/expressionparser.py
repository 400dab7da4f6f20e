"""Grammar of expressions and queries, by recursive descent ([D] Transact-SQL reference, pages
"Expressions", "Search condition", "SELECT")."""

from __future__ import annotations

from decimal import Decimal

from . import sqltypes as t
from . import syntax as s
from .errors import SqlError, not_modelled
from .lexer import Token

_RESERVED = frozenset(
    [
        "SELECT",
        "FROM",
        "WHERE",
        "GROUP",
        "HAVING",
        "ORDER",
        "UNION",
        "EXCEPT",
        "INTERSECT",
        "ON",
        "JOIN",
        "INNER",
        "LEFT",
        "RIGHT",
        "FULL",
        "CROSS",
        "OUTER",
        "AND",
        "OR",
        "NOT",
        "IN",
        "IS",
        "NULL",
        "LIKE",
        "BETWEEN",
        "EXISTS",
        "CASE",
        "WHEN",
        "THEN",
        "ELSE",
        "END",
        "AS",
        "TOP",
        "DISTINCT",
        "INTO",
        "SET",
        "VALUES",
        "BEGIN",
        "COMMIT",
        "ROLLBACK",
        "BACKUP",
        "RESTORE",
        "USE",
        "DECLARE",
        "IF",
        "WHILE",
        "CREATE",
        "ALTER",
        "DROP",
        "INSERT",
        "UPDATE",
        "DELETE",
        "EXEC",
        "EXECUTE",
        "PRINT",
        "RAISERROR",
        "WAITFOR",
        "KILL",
        "DBCC",
        "GRANT",
        "DENY",
        "REVOKE",
        "WITH",
        "OPTION",
        "FOR",
        "RETURN",
        "CHECKPOINT",
        "COLLATE",
        "PRIMARY",
        "KEY",
        "UNIQUE",
        "CHECK",
        "DEFAULT",
        "IDENTITY",
        "TO",
    ]
)
_COMPARISONS = frozenset({"=", "<>", "!=", "<", ">", "<=", ">="})


class TokenCursor:
    """A place in a token list, and the questions a recursive-descent parser asks."""

    def __init__(self, found: list[Token]) -> None:
        self.found = found
        self.at = 0

    @property
    def token(self) -> Token:
        return self.found[self.at]

    def peek(self, ahead: int = 1) -> Token:
        return self.found[min(self.at + ahead, len(self.found) - 1)]

    def advance(self) -> Token:
        token = self.found[self.at]
        if token.kind != "end":
            self.at += 1
        return token

    def is_word(self, *words: str) -> bool:
        return all(self.peek(i).upper == word for i, word in enumerate(words))

    def take(self, *words: str) -> bool:
        """Consume these words if they come next, in this order."""
        if self.is_word(*words):
            self.at += len(words)
            return True
        return False

    def expect(self, *words: str) -> None:
        if not self.take(*words):
            raise self.wrong()

    def wrong(self, token: Token | None = None) -> SqlError:
        near = token or self.token
        if near.kind == "end":
            near = self.found[max(self.at - 1, 0)]
        if near.kind == "word" and near.upper in _RESERVED:
            return SqlError(156, f"Incorrect syntax near the keyword '{near.text}'.", 15)
        return SqlError(102, f"Incorrect syntax near '{near.text}'.", 15)

    def name(self) -> str:
        """One identifier."""
        token = self.token
        if token.kind == "name" or (token.kind == "word" and token.upper not in _RESERVED):
            return self.advance().text
        raise self.wrong()

    def parts(self) -> tuple[str, ...]:
        """A dotted name; an empty part (``msdb..backupset``) becomes ''."""
        found = [self.name()]
        while self.take("."):
            found.append("" if self.is_word(".") else self.name())
        return tuple(found)

    def string(self) -> str:
        if self.token.kind != "string":
            raise self.wrong()
        return self.advance().text

    def integer(self) -> int:
        sign = -1 if self.take("-") else 1
        if self.token.kind != "number":
            raise self.wrong()
        return sign * int(self.advance().text)


class ExpressionParser(TokenCursor):
    """Expressions, conditions and queries."""

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

    # queries -----------------------------------------------------------------------------------
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

    def _skip_parentheses(self) -> None:
        self.expect("(")
        depth = 1
        while depth:
            token = self.advance()
            if token.kind == "end":
                raise self.wrong()
            depth += (token.text == "(") - (token.text == ")")

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
            token.kind == "word" and token.upper not in _RESERVED and not _starts_clause(token)
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
