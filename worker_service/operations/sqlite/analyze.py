import apsw

from worker_service.domain.outcome import Measures, Result, Verdict
from worker_service.operations.sqlite.measures import read_statistics, statistics_changed
from worker_service.operations.sqlite.options import BUSY_TIMEOUT, IntegerOption, Options
from worker_service.operations.sqlite.procedure import skipped
from worker_service.operations.sqlite.session import Session
from worker_service.operations.sqlite.sweep import Words, judge, statements_for, sweep
from worker_service.operations.sqlite.wording import count

# A virtual table has no pages to analyse; its shadow tables are analysed by a plain ANALYZE too.
TABLES = """
SELECT name FROM pragma_table_list
WHERE schema = 'main' AND type IN ('table', 'shadow') AND name NOT GLOB 'sqlite_*'
ORDER BY name
"""
LIMIT = IntegerOption(
    name="analysis_limit",
    description="Read about this many rows of each index (default 0: all).",
    default=0,
    most=1_000_000,
)
_WORDS = Words(noun="table", plural="tables", done="analysed")


class Analyze:
    """Renew the optimizer's statistics, table by table, so that a missing collation fails one table."""

    name = "analyze"
    description = "Renew the query planner's statistics of every table."
    options = (LIMIT, BUSY_TIMEOUT)

    def plan(self, connection: apsw.Connection, options: Options, /) -> tuple[str, ...]:
        """The limit when there is one, then one statement a table."""
        names = [str(row[0]) for row in connection.execute(TABLES)]
        statements = tuple(statements_for(names, "ANALYZE").values())
        return (*limit_statements(options), *statements) if statements else ()

    def run(self, session: Session, _before: Measures, /) -> Result:
        """Analyse each; the statistics before and after tell what changed."""
        statements = statements_for(session.names(TABLES), "ANALYZE")
        if not statements:
            return skipped("the database has no table.", session.measures() | {"stat_rows_changed": 0.0})
        old = read_statistics(session.connection)
        for statement in limit_statements(session.options):
            session.rows(statement)
        swept = sweep(session, "analyze", statements, "tables")
        after = session.measures()
        changed = 0 if session.stop.is_set() else statistics_changed(old, read_statistics(session.connection))
        if not session.stop.is_set():
            after |= {"stat_rows_changed": float(changed)}
        verdict, reason = _verdict(len(swept.done), changed)
        return judge(swept, _WORDS, verdict, reason, after)


def limit_statements(options: Options) -> tuple[str, ...]:
    """The pragma that limits what ANALYZE reads, when it is limited."""
    limit = options.numbers[LIMIT.name]
    return (f"PRAGMA main.analysis_limit = {limit}",) if limit else ()


def _verdict(tables: int, changed: int) -> tuple[Verdict, str]:
    if changed:
        text = f"analysed {_WORDS.count(tables)}, {count(changed, 'row')} of sqlite_stat1 changed."
        return Verdict.EFFECTIVE, text
    return Verdict.NO_EFFECT, f"analysed {_WORDS.count(tables)}, the statistics were already like that."
