"""Statements that are written in SQLAlchemy Core, compiled once, and run by name."""

import json
from collections import namedtuple
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from operator import itemgetter
from typing import Any, Protocol

from sqlalchemy import ColumnElement, Insert, Table, bindparam, insert
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


# Lists of up to one value are spelled out in the text; longer ones are bound as a whole, as JSON.
_SPELLED_OUT = 1
MANY = -1

Values = Sequence[Any]
# What waits for the rows of a statement that was sent, and for the number of rows that one changed.
Rows = Callable[[], Sequence[Any]]
Changed = Callable[[], int]


class Text:
    """A statement's text for one length of its lists; how its values are bound, and what its rows are."""

    __slots__ = ("_defaults", "_pick", "names", "row", "sql")

    def __init__(self, core: ClauseElement, dialect: Dialect, lists: Collection[str], length: int) -> None:
        compiled: Any = core.compile(dialect=dialect, compile_kwargs={"among": length})
        self.sql: str = compiled.string
        self.names = tuple(compiled.positiontup)
        self._defaults = _defaults(core, {name: compiled.binds[name] for name in self.names})
        self._pick = _picker(self.names, lists, length)
        columns = [entry.keyname for entry in compiled._result_columns or ()]  # noqa: SLF001 -- no public name
        self.row = _row_type(columns)

    def values(self, given: dict[str, Any]) -> Values:
        """Return the values of the parameters; those not given have their default, or are a ``KeyError``."""
        try:
            return self._pick(given)
        except KeyError:
            return self._pick({**self._defaults, **given})


class Statement:
    """A Core statement, compiled at its first use.

    The store runs the same few dozen statements again and again, twenty for a single report: compiling each once
    and handing plain tuples to the driver costs a quarter of what an execution through the engine does.
    """

    __slots__ = ("_texts", "core", "lists")

    def __init__(self, core: ClauseElement) -> None:
        self.core = core
        self.lists = tuple(part.values.key for part in visitors.iterate(core) if isinstance(part, Among))
        self._texts: dict[tuple[str, int], Text] = {}

    def text(self, dialect: Dialect, given: dict[str, Any]) -> Text:
        """Return the text that fits lists of these lengths."""
        length = self._length(given) if self.lists else MANY
        return self._texts.get((dialect.name, length)) or self._compiled(dialect, length)

    def _length(self, given: dict[str, Any]) -> int:
        """Return how long all lists are, if that is spelled out."""
        length = len(given[self.lists[0]])
        if length > _SPELLED_OUT or (
            len(self.lists) > 1 and any(len(given[name]) != length for name in self.lists[1:])
        ):
            return MANY
        return length

    def _compiled(self, dialect: Dialect, length: int) -> Text:
        self._texts[dialect.name, length] = text = Text(self.core, dialect, self.lists, length)
        return text


@lru_cache
def insertion(table: Table) -> Statement:
    """Return the statement that inserts rows into a table."""
    return Statement(insert(table))


def _defaults(core: ClauseElement, parameters: dict[str, BindParameter[Any]]) -> dict[str, object]:
    """Return the values that are written in the statement; what an insert leaves out is NULL."""
    written = {name: bound.value for name, bound in parameters.items() if not bound.required}
    return {**dict.fromkeys(parameters), **written} if isinstance(core, Insert) else written


def _picker(names: Sequence[str], lists: Collection[str], length: int) -> Callable[[dict[str, Any]], Values]:
    """Return the fastest way to take these values out of a mapping, in this order."""
    if not lists and len(names) > 1:
        return itemgetter(*names)
    bind = itemgetter(0) if length == 1 else json.dumps
    if len(names) == 1:
        [name] = names
        return (lambda values: (bind(values[name]),)) if name in lists else (lambda values: (values[name],))
    return lambda values: [bind(values[name]) if name in lists else values[name] for name in names]


def _row_type(columns: Sequence[str]) -> Callable[[Sequence[object]], Any]:
    make: Callable[..., Any] = namedtuple  # noqa: PYI024 -- the columns are known at run time only
    # As its _make does, without the check of the length.
    return partial(tuple.__new__, make("Row", columns, rename=True))


class Connection(Protocol):
    """What the verbs may do to the database within a transaction or a snapshot."""

    def rows(self, statement: Statement, **given: Any) -> list[Any]:
        """Run a statement and return its rows."""

    def ask(self, statement: Statement, **given: Any) -> Rows:
        """Run a statement, at the latest when its rows are read, after what was asked and posted before it."""

    def ask_many(self, statement: Statement, many: Sequence[dict[str, Any]]) -> Changed:
        """Run a statement for many sets of values, as ``run_many`` does, at the latest when it is read."""

    def batches(self, statement: Statement, size: int, **given: Any) -> Generator[list[Any]]:
        """Run a statement only as far as its rows are asked for, ``size`` at first and ever more; to be closed."""

    def run(self, statement: Statement, **given: Any) -> int:
        """Run a statement and return how many rows it changed."""

    def run_many(self, statement: Statement, many: Sequence[dict[str, Any]]) -> int:
        """Run a statement without lists once for each set of values; return how many rows it changed in all."""

    def copy_many(
        self, table: Table, pieces: Iterable[Sequence[Mapping[str, Any]]], **same: Any
    ) -> Generator[None]:
        """Insert rows, all with the same columns, in the fastest way, and let others go on between the pieces.

        Args:
            table: where they belong.
            pieces: the columns in which the rows differ, some thousand rows at a time.
            same: the columns that have one value in all rows.
        """

    def post(self, statement: Statement, **given: Any) -> object:
        """Run a statement, at the latest before the next whose rows are read, and wait for nothing."""

    def post_many(self, statement: Statement, many: Sequence[dict[str, Any]]) -> object:
        """Run a statement for many sets of values, as ``run_many`` does, and wait for nothing."""


def first(rows: Sequence[Any]) -> Any | None:
    """Return the first of some rows, if there is one."""
    return rows[0] if rows else None
