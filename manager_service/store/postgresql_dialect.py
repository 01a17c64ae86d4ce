"""What PostgreSQL's SQL has of its own: lists, limits, and statements that are run for many rows at once."""

import re
from typing import Any

from sqlalchemy import Delete, Insert, Update, create_engine
from sqlalchemy.dialects.postgresql.base import PGCompiler
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import NullPool
from sqlalchemy.sql.elements import BindParameter
from sqlalchemy.sql.expression import ClauseElement

from manager_service.store.statements import Among

_ROWS = "many"
_PARAMETER = re.compile(r'\$(\d+)(::\w+)?( COLLATE "C")?')


class _Compiler(PGCompiler):
    """Leaves out SQLite's index hints: here the settings of the connection pin the plans."""

    def format_from_hint_text(self, sqltext: str, table: Any, hint: str, iscrud: bool) -> str:  # noqa: ARG002, FBT001 -- the base's
        return sqltext

    def limit_clause(self, select: Any, **kwargs: Any) -> str:
        """Return the limit; the negative one, which is none, still keeps a subquery apart."""
        limit = select._limit_clause  # noqa: SLF001 -- as the base does
        if isinstance(limit, BindParameter) and limit.value == -1:
            return "\n OFFSET 0"
        clause: str = super().limit_clause(select, **kwargs)  # type: ignore[no-untyped-call]  # the base is not typed
        return clause


@compiles(Among, "postgresql")
def _among(element: Among, compiler: Any, **kwargs: Any) -> str:
    column = compiler.process(element.column, **kwargs)
    match kwargs["among"]:
        case 0:
            return f"{column} = ANY ('{{}}')"
        case 1:
            return f"{column} = {compiler.process(element.values, **kwargs)}"
    values = compiler.process(element.values, **kwargs)
    # An array, and not a join: its index scan needs no statistics. JSON, because the driver is slow with arrays.
    return f"{column} = ANY (ARRAY(SELECT json_array_elements_text(CAST({values} AS JSON))))"


class RowsText:
    """A statement that is run once for many sets of values, which it is given as one JSON text."""

    __slots__ = ("names", "sql")

    def __init__(self, core: ClauseElement, dialect: Dialect) -> None:
        compiled: Any = core.compile(dialect=dialect)
        self.names = tuple(compiled.positiontup)
        kinds = (dialect.type_compiler_instance.process(compiled.binds[name].type) for name in self.names)
        columns = ", ".join(f'"{name}" {kind}' for name, kind in zip(self.names, kinds, strict=True))
        sql = _PARAMETER.sub(lambda found: f'{_ROWS}."{self.names[int(found[1]) - 1]}"', compiled.string)
        self.sql = _from_rows(core, sql, f"json_to_recordset(CAST($1 AS JSON)) AS {_ROWS}({columns})")


def _from_rows(core: ClauseElement, sql: str, source: str) -> str:
    """Let a statement for one row read its values from a table of rows."""
    if isinstance(core, Insert):
        head, values = sql.split(" VALUES (", 1)
        return f"{head} SELECT {values.removesuffix(')')} FROM {source}"  # noqa: S608 -- of Core statements
    if not isinstance(core, Update | Delete):
        raise TypeError("only inserts, updates and deletes are run for many rows")
    head, condition = sql.split(" WHERE ", 1)
    return f"{head} {'USING' if isinstance(core, Delete) else 'FROM'} {source} WHERE {condition}"


def postgresql_dialect() -> Dialect:
    """Return the dialect that compiles statements as they are run here."""
    dialect = create_engine("postgresql+psycopg://", paramstyle="numeric_dollar", poolclass=NullPool).dialect
    dialect.statement_compiler = _Compiler
    return dialect
