import apsw

from worker_service.domain.outcome import Measures, Result, Verdict
from worker_service.operations.options import NumberOption
from worker_service.operations.sqlite.measures import statistics_changed
from worker_service.operations.sqlite.options import BUSY_TIMEOUT, Options
from worker_service.operations.sqlite.procedure import skipped
from worker_service.operations.sqlite.session import Session
from worker_service.operations.sqlite.sweep import Words, judge, statements_for, sweep
from worker_service.operations.wording import count

# A virtual table has no pages to analyse; its shadow tables are analysed by a plain ANALYZE too.
TABLES = """
SELECT name FROM pragma_table_list
WHERE schema = 'main' AND type IN ('table', 'shadow') AND name NOT GLOB 'sqlite_*'
ORDER BY name
"""
LIMIT = NumberOption(
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
        """The limit when there is one, then one statement a table, or that of the one table."""
        names = [str(row[0]) for row in connection.execute(TABLES)]
        statements = tuple(_statements(names, options).values())
        return (*limit_statements(options), *statements) if statements else ()

    def run(self, session: Session, _before: Measures, /) -> Result:
        """Analyse each; the statistics before and after tell what changed."""
        statements = _statements(session.names(TABLES), session.options)
        if not statements:
            return skipped(_nothing(session.options), session.measures() | {"stat_rows_changed": 0.0})
        old = session.statistics()
        for statement in limit_statements(session.options):
            session.rows(statement)
        swept = sweep(session, "analyze", statements, "tables")
        with session.snapshot():
            changed = statistics_changed(old, session.statistics())
            after = with_change(session.measures(), changed)
        verdict, reason = change(changed, f"analysed {_WORDS.count(len(swept.done))}")
        return judge(swept, _WORDS, verdict, reason, after)


def _statements(names: list[str], options: Options) -> dict[str, str]:
    return statements_for([name for name in names if options.object in {None, name}], "ANALYZE")


def _nothing(options: Options) -> str:
    return "the database has no table." if options.object is None else f"there is no table {options.object!r}."


def limit_statements(options: Options) -> tuple[str, ...]:
    """The pragma that limits what ANALYZE reads, when it is limited."""
    limit = options.numbers[LIMIT.name]
    return (f"PRAGMA main.analysis_limit = {limit}",) if limit else ()


def change(changed: int | None, done: str) -> tuple[Verdict, str]:
    """Judge by the entries of the statistics that changed; ``None`` when they cannot be read."""
    if changed is None:
        return Verdict.UNKNOWN, f"{done}; the statistics could not be read to tell what changed."
    if changed:
        return Verdict.EFFECTIVE, f"{done}, {count(changed, 'entry', 'entries')} of the statistics changed."
    return Verdict.NO_EFFECT, f"{done}, the statistics were already like that."


def with_change(measures: Measures, changed: int | None) -> Measures:
    """Add the rows that changed to the measures, where they are known."""
    return measures if changed is None else {**measures, "stat_rows_changed": float(changed)}
