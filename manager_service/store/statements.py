"""Statements that are written in SQLAlchemy Core, compiled once, and run by name."""

from collections import namedtuple
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Protocol

from sqlalchemy import ColumnElement, bindparam
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import visitors
from sqlalchemy.sql.elements import BindParameter
from sqlalchemy.sql.expression import ClauseElement
from sqlalchemy.types import NullType, TypeEngine


class Among(ColumnElement[Any]):
    """Whether a column's value is in the list bound as ``name``; dialects bind lists in their own ways."""

    inherit_cache = False
    # Not Boolean: SQLAlchemy would add "= 1", which hides the index of the column.
    type: TypeEngine[Any] = NullType()

    def __init__(self, column: ColumnElement[Any], name: str) -> None:
        self.column = column
        self.values: BindParameter[Any] = bindparam(name)


class Statement:
    """A Core statement, compiled at its first use.

    The store runs the same few dozen statements again and again, twenty for a single report: compiling each once
    and handing plain tuples to the driver costs a quarter of what an execution through the engine does.
    """

    __slots__ = ("_core", "_defaults", "_names", "_pick", "_row", "_sql", "lists")

    def __init__(self, core: ClauseElement) -> None:
        self._core = core
        self._sql = ""
        self._names: tuple[str, ...] = ()
        self._defaults: dict[str, object] = {}
        self._pick: Callable[[dict[str, Any]], Sequence[Any]] = list
        self.lists = False
        self._row: Callable[[Sequence[object]], Any] = tuple

    def sql(self, dialect: Dialect) -> str:
        """Return the statement's text."""
        if not self._sql:
            self._compile(dialect)
        return self._sql

    def arguments(self, given: dict[str, Any]) -> Sequence[Any]:
        """Return the values of the statement's parameters, in their order; those not given have their default."""
        values = {**self._defaults, **given} if self._defaults else given
        try:
            return self._pick(values)
        except KeyError:
            return [values.get(name) for name in self._names]

    def row(self, values: Sequence[object]) -> Any:
        """Return a result row whose columns are attributes."""
        return self._row(values)

    def _compile(self, dialect: Dialect) -> None:
        compiled: Any = self._core.compile(dialect=dialect)
        self._names = tuple(compiled.positiontup)
        self._defaults = {name: value for name in self._names if (value := compiled.params.get(name)) is not None}
        self._pick = _picker(self._names)
        self.lists = any(isinstance(part, Among) for part in visitors.iterate(self._core))
        columns = [entry.keyname for entry in compiled._result_columns or ()]  # noqa: SLF001 -- no public name
        if columns:
            self._row = _row_type(columns)
        self._sql = compiled.string


def _picker(names: Sequence[str]) -> Callable[[dict[str, Any]], Sequence[Any]]:
    """Return the fastest way to take these values out of a mapping, as a sequence."""
    if len(names) > 1:
        return itemgetter(*names)
    return lambda values: [values[name] for name in names]


def _row_type(columns: Sequence[str]) -> Callable[[Sequence[object]], Any]:
    make: Callable[..., Any] = namedtuple  # noqa: PYI024 -- the columns are known at run time only
    row: Callable[[Sequence[object]], Any] = make("Row", columns, rename=True)._make
    return row


class Connection(Protocol):
    """What the verbs may do to the database within a transaction or a snapshot."""

    def rows(self, statement: Statement, **given: Any) -> list[Any]:
        """Run a statement and return its rows."""

    def run(self, statement: Statement, **given: Any) -> int:
        """Run a statement and return how many rows it changed."""

    def run_many(self, statement: Statement, many: Sequence[dict[str, Any]]) -> int:
        """Run a statement once for each set of values and return how many rows it changed in all."""


def first(rows: Sequence[Any]) -> Any | None:
    """Return the first of some rows, if there is one."""
    return rows[0] if rows else None
