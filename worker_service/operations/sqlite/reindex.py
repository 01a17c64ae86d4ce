from collections.abc import Iterable, Sequence

import apsw

from worker_service.domain.outcome import Measures, Result, Verdict
from worker_service.operations.sqlite.options import BUSY_TIMEOUT, Options
from worker_service.operations.sqlite.procedure import skipped
from worker_service.operations.sqlite.session import Session, SqlValue
from worker_service.operations.sqlite.sweep import Words, judge, statements_for, sweep

# The automatic index of a WITHOUT ROWID table's primary key has no row in sqlite_schema; index_list tells it.
INDEXES = """
SELECT tl.name, il.name
FROM pragma_table_list AS tl JOIN pragma_index_list(tl.name, 'main') AS il
WHERE tl.schema = 'main' AND tl.type IN ('table', 'shadow')
ORDER BY tl.name, il.name
"""
_WORDS = Words(noun="index", plural="indexes", done="rebuilt")


class Reindex:
    """Rebuild every index, one by one, those of UNIQUE and PRIMARY KEY included."""

    name = "reindex"
    description = "Rebuild every index, also the automatic ones of UNIQUE and PRIMARY KEY."
    options = (BUSY_TIMEOUT,)

    def plan(self, connection: apsw.Connection, options: Options, /) -> tuple[str, ...]:
        """One statement an index, or those of the one table or index."""
        return tuple(_statements(connection.execute(INDEXES), options).values())

    def run(self, session: Session, _before: Measures, /) -> Result:
        """Rebuild each; one that fails is told and does not keep the others."""
        statements = _statements(session.rows(INDEXES), session.options)
        if not statements:
            after = session.measures() | {"indexes_rebuilt": 0.0, "indexes_failed": 0.0}
            return skipped(_nothing(session.options), after)
        swept = sweep(session, "reindex", statements, "indexes")
        after = session.measures() | {
            "indexes_rebuilt": float(len(swept.done)),
            "indexes_failed": float(len(swept.failures)),
        }
        automatic = sum(name.startswith("sqlite_autoindex_") for name in swept.done)
        reason = f"rebuilt {_WORDS.count(len(swept.done))}, {automatic} of them automatic."
        return judge(swept, _WORDS, Verdict.EFFECTIVE, reason, after)


def _statements(rows: Iterable[Sequence[SqlValue]], options: Options) -> dict[str, str]:
    # No table is called as an index is: SQLite keeps the names of both in one place.
    names = [str(index) for table, index in rows if options.object in {None, table, index}]
    return statements_for(names, "REINDEX")


def _nothing(options: Options) -> str:
    if options.object is None:
        return "the database has no index."
    return f"there is no index {options.object!r}, nor a table of that name with one."
