"""What SQLite's SQL has of its own: pinned plans, limits, lists."""

from pathlib import Path
from typing import Any

from pysqlite3 import dbapi2
from sqlalchemy import create_engine
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler
from sqlalchemy.engine import URL, Engine
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import NullPool

from manager_service.store.statements import Among


class _Compiler(SQLiteCompiler):
    """Pins plans: a hint names the index, and tables are read in the order in which they are written.

    Tables that were just filled have no statistics, so the planner would sort all ready rows or begin a join at
    its wrong end. CROSS JOIN is SQLite's way to fix the order.
    """

    def get_from_hint_text(self, table: Any, text: str | None) -> str | None:  # noqa: ARG002 -- the base's
        return text

    def visit_join(self, join: Any, asfrom: Any = False, from_linter: Any = None, **kwargs: Any) -> Any:  # noqa: ARG002, FBT002 -- the base's
        left, right = (self.process(side, asfrom=True, **kwargs) for side in (join.left, join.right))
        kind = "LEFT" if join.isouter else "CROSS"
        return f"{left} {kind} JOIN {right} ON {self.process(join.onclause, **kwargs)}"

    def limit_clause(self, select: Any, **kwargs: Any) -> str:
        """Return a limit that SQLite does not look at: one that is bound plainly has it compile each time anew."""
        limit, offset = (
            f"{self.process(clause, **kwargs)} + 0" if clause is not None else ""
            for clause in (select._limit_clause, select._offset_clause)  # noqa: SLF001 -- as the base does
        )
        return f"\n LIMIT {limit or -1}" + (f" OFFSET {offset}" if offset else "")


@compiles(Among, "sqlite")
def _among(element: Among, compiler: Any, **kwargs: Any) -> str:
    column = compiler.process(element.column, **kwargs)
    match kwargs["among"]:
        case 0:
            return f"{column} IN (SELECT NULL WHERE 0)"  # as `IN ()`, but an index may be named for it
        case 1:
            return f"{column} IN ({compiler.process(element.values, **kwargs)})"
    values = compiler.process(element.values, **kwargs)
    return f"{column} IN (SELECT value FROM json_each({values}))"  # noqa: S608 -- a placeholder


def sqlite_engine(path: Path) -> Engine:
    """Return an engine on a store's file, which compiles statements as they are run here."""
    engine = create_engine(URL.create("sqlite", database=str(path)), module=dbapi2, poolclass=NullPool)
    engine.dialect.statement_compiler = _Compiler
    return engine
