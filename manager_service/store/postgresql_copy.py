"""Rows as the text that PostgreSQL's COPY reads, which it takes in several times as fast as an insert."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import repeat
from operator import itemgetter
from typing import Any

from sqlalchemy import Boolean, Integer, Table, Text

_NULL = "\\N"
_SPECIAL = re.compile(r"[\0\t\n\r\\]")
# PostgreSQL has no text with NUL characters.
_ESCAPED = str.maketrans({"\0": "\ufffd", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\\": "\\\\"})

Write = Callable[[Sequence[Any]], Iterable[str]]


class Copying:
    """How rows of some columns come into a table.

    Args:
        table: the table.
        names: the columns of which each row has a value of its own, at least one.
        same: the columns that have one value in all rows.
    """

    __slots__ = ("_get", "_same", "_write", "sql")

    def __init__(self, table: Table, names: Sequence[str], same: Sequence[str]) -> None:
        columns = ", ".join(f'"{name}"' for name in (*same, *names))
        self.sql = f"COPY \"{table.name}\" ({columns}) FROM STDIN WITH (ENCODING 'UTF8')"
        self._same = [(name, _written(table, name)) for name in same]
        self._write = [_written(table, name) for name in names]
        self._get = itemgetter(*names) if len(names) > 1 else lambda row: (row[names[0]],)

    def text(self, rows: Iterable[Mapping[str, Any]], same: Mapping[str, Any]) -> bytes:
        """Return rows as COPY reads them; none of them is nothing."""
        columns = zip(*map(self._get, rows), strict=True)
        written: list[Iterable[str]] = [write(column) for write, column in zip(self._write, columns, strict=False)]
        if not written:
            return b""
        alike = [next(iter(write([same[name]]))) for name, write in self._same]
        lines = map("\t".join, zip(*map(repeat, alike), *written, strict=False))
        return ("\n".join(lines) + "\n").encode()


@lru_cache(maxsize=64)
def copying(table: Table, names: tuple[str, ...], same: tuple[str, ...]) -> Copying:
    """Return how rows of these columns come into the table, thought out once."""
    return Copying(table, names, same)


def _written(table: Table, name: str) -> Write:
    """Return how the values of a column are written, all of them at once."""
    column = table.c[name]
    match column.type:
        case Text():
            write: Write = _texts
        case Boolean():
            write = _booleans
        case Integer():
            write = _numbers
        case other:
            raise TypeError(f"{column} is {other!r}; say in postgresql_copy how such values are written")
    return (lambda values: _with_nulls(write, values)) if column.nullable else write


def _with_nulls(write: Write, values: Sequence[Any]) -> Iterable[str]:
    nulls = values.count(None)
    if nulls == len(values):
        return repeat(_NULL, nulls)
    if not nulls:
        return write(values)
    written = iter(write([value for value in values if value is not None]))
    return [_NULL if value is None else next(written) for value in values]


def _texts(values: Sequence[str]) -> Iterable[str]:
    """Escape texts; hardly any has to be, and one look at all of them together is quick."""
    if _SPECIAL.search("".join(values)):
        return [value.translate(_ESCAPED) for value in values]
    return values


def _numbers(values: Sequence[int]) -> Iterable[str]:
    return map(str, values)


def _booleans(values: Sequence[bool]) -> Iterable[str]:
    return ["t" if value else "f" for value in values]
