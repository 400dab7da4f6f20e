"""The syntax tree: expressions, queries and statements. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .sqltypes import SqlType


# Expressions -----------------------------------------------------------------------------------
class Expression:
    """Any expression."""


@dataclass(frozen=True, slots=True)
class Literal(Expression):
    value: Any
    type: SqlType


@dataclass(frozen=True, slots=True)
class Variable(Expression):
    name: str


@dataclass(frozen=True, slots=True)
class ColumnRef(Expression):
    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Star(Expression):
    qualifier: str | None


@dataclass(frozen=True, slots=True)
class Window:
    partition: tuple[Expression, ...]
    order: tuple[tuple[Expression, bool], ...]


@dataclass(frozen=True, slots=True)
class Call(Expression):
    name: str
    arguments: tuple[Expression, ...]
    distinct: bool = False
    window: Window | None = None


@dataclass(frozen=True, slots=True)
class Unary(Expression):
    operator: str
    operand: Expression


@dataclass(frozen=True, slots=True)
class Binary(Expression):
    operator: str
    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True)
class IsNull(Expression):
    operand: Expression
    negated: bool


@dataclass(frozen=True, slots=True)
class InList(Expression):
    operand: Expression
    choices: tuple[Expression, ...]
    negated: bool


@dataclass(frozen=True, slots=True)
class InQuery(Expression):
    operand: Expression
    query: Query
    negated: bool


@dataclass(frozen=True, slots=True)
class Exists(Expression):
    query: Query


@dataclass(frozen=True, slots=True)
class Scalar(Expression):
    query: Query


@dataclass(frozen=True, slots=True)
class Like(Expression):
    operand: Expression
    pattern: Expression
    escape: Expression | None
    negated: bool


@dataclass(frozen=True, slots=True)
class Between(Expression):
    operand: Expression
    low: Expression
    high: Expression
    negated: bool


@dataclass(frozen=True, slots=True)
class Case(Expression):
    operand: Expression | None
    branches: tuple[tuple[Expression, Expression], ...]
    otherwise: Expression | None


@dataclass(frozen=True, slots=True)
class Cast(Expression):
    operand: Expression
    type: SqlType
    style: int | None = None
    tries: bool = False


@dataclass(frozen=True, slots=True)
class AtTimeZone(Expression):
    operand: Expression
    zone: Expression


# Queries ---------------------------------------------------------------------------------------
class Source:
    """Anything after FROM."""


@dataclass(frozen=True, slots=True)
class Table(Source):
    parts: tuple[str, ...]
    alias: str | None


@dataclass(frozen=True, slots=True)
class TableFunction(Source):
    parts: tuple[str, ...]
    arguments: tuple[Expression, ...]
    alias: str | None


@dataclass(frozen=True, slots=True)
class Derived(Source):
    query: Query
    alias: str


@dataclass(frozen=True, slots=True)
class Values(Source):
    rows: tuple[tuple[Expression, ...], ...]
    alias: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Join(Source):
    kind: str  # inner, left, right, full, cross, cross apply, outer apply
    left: Source
    right: Source
    on: Expression | None


@dataclass(frozen=True, slots=True)
class Item:
    expression: Expression
    alias: str | None


@dataclass(frozen=True, slots=True)
class Select:
    items: tuple[Item, ...]
    source: Source | None = None
    where: Expression | None = None
    group: tuple[Expression, ...] = ()
    having: Expression | None = None
    distinct: bool = False
    top: Expression | None = None
    assigns: tuple[str, ...] = ()
    into: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Query:
    """``parts`` are joined by ``operators`` (UNION, UNION ALL, EXCEPT, INTERSECT)."""

    parts: tuple[Select, ...]
    operators: tuple[str, ...] = ()
    order: tuple[tuple[Expression, bool], ...] = ()
    ctes: tuple[tuple[str, tuple[str, ...], Query], ...] = ()
    offset: Expression | None = None
    fetch: Expression | None = None


# Statements ------------------------------------------------------------------------------------
class Statement:
    """Any statement."""


@dataclass(frozen=True, slots=True)
class SelectStatement(Statement):
    query: Query


@dataclass(frozen=True, slots=True)
class Device:
    """A backup device: kind DISK, TAPE, URL or LOGICAL and where it is."""

    kind: str
    where: Expression


@dataclass(frozen=True, slots=True)
class Backup(Statement):
    kind: str  # DATABASE or LOG
    database: Expression
    devices: tuple[Device, ...]
    mirrors: tuple[tuple[Device, ...], ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    partial: bool = False


@dataclass(frozen=True, slots=True)
class Restore(Statement):
    kind: str  # DATABASE, LOG, HEADERONLY, FILELISTONLY, LABELONLY, VERIFYONLY
    database: Expression | None
    devices: tuple[Device, ...]
    options: dict[str, Any] = field(default_factory=dict)
    moves: tuple[tuple[Expression, Expression], ...] = ()


@dataclass(frozen=True, slots=True)
class Use(Statement):
    database: str


@dataclass(frozen=True, slots=True)
class SetOption(Statement):
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SetVariable(Statement):
    name: str
    value: Expression


@dataclass(frozen=True, slots=True)
class Declare(Statement):
    variables: tuple[tuple[str, SqlType, Expression | None], ...]


@dataclass(frozen=True, slots=True)
class If(Statement):
    condition: Expression
    then: Statement
    otherwise: Statement | None


@dataclass(frozen=True, slots=True)
class While(Statement):
    condition: Expression
    body: Statement


@dataclass(frozen=True, slots=True)
class Block(Statement):
    statements: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Transaction(Statement):
    action: str  # BEGIN, COMMIT, ROLLBACK, SAVE
    name: str | None = None
    mark: str | None = None


@dataclass(frozen=True, slots=True)
class CreateDatabase(Statement):
    name: str
    collation: str | None = None
    snapshot_of: str | None = None


@dataclass(frozen=True, slots=True)
class AlterDatabase(Statement):
    name: str
    action: str  # SET, MODIFY NAME, ADD FILE ...
    words: tuple[str, ...] = ()
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DropDatabase(Statement):
    names: tuple[str, ...]
    if_exists: bool


@dataclass(frozen=True, slots=True)
class CreateTable(Statement):
    parts: tuple[str, ...]
    columns: tuple[tuple[str, SqlType, bool, bool], ...]  # name, type, identity, nullable


@dataclass(frozen=True, slots=True)
class DropTable(Statement):
    parts: tuple[str, ...]
    if_exists: bool


@dataclass(frozen=True, slots=True)
class Insert(Statement):
    parts: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[Expression, ...], ...]
    query: Query | None = None


@dataclass(frozen=True, slots=True)
class Update(Statement):
    parts: tuple[str, ...]
    assignments: tuple[tuple[str, Expression], ...]
    where: Expression | None


@dataclass(frozen=True, slots=True)
class Delete(Statement):
    parts: tuple[str, ...]
    where: Expression | None


@dataclass(frozen=True, slots=True)
class Kill(Statement):
    session: int
    status_only: bool


@dataclass(frozen=True, slots=True)
class Dbcc(Statement):
    command: str
    arguments: tuple[str, ...]
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Execute(Statement):
    """EXEC('text'), or EXEC procedure arguments."""

    text: Expression | None
    procedure: tuple[str, ...] = ()
    arguments: tuple[tuple[str | None, Expression], ...] = ()
    result: str | None = None


@dataclass(frozen=True, slots=True)
class Credential(Statement):
    action: str  # CREATE, ALTER, DROP
    name: str
    identity: str | None = None
    secret: str | None = None


@dataclass(frozen=True, slots=True)
class Principal(Statement):
    """CREATE/ALTER/DROP LOGIN, USER or ROLE, and role membership; ``values`` as parsed."""

    action: str
    name: str
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Permission(Statement):
    action: str  # GRANT, DENY, REVOKE
    permissions: tuple[str, ...]
    on: tuple[str, ...]
    principals: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AlterAuthorization(Statement):
    database: str
    owner: str


@dataclass(frozen=True, slots=True)
class Print(Statement):
    text: Expression


@dataclass(frozen=True, slots=True)
class Raise(Statement):
    text: Expression
    severity: Expression
    state: Expression


@dataclass(frozen=True, slots=True)
class WaitFor(Statement):
    seconds: float


@dataclass(frozen=True, slots=True)
class Checkpoint(Statement):
    pass


@dataclass(frozen=True, slots=True)
class Return(Statement):
    pass


@dataclass(frozen=True, slots=True)
class TryCatch(Statement):
    body: tuple[Statement, ...]
    handler: tuple[Statement, ...]
