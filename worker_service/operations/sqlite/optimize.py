import re

import apsw

from worker_service.domain.errors import OperationCancelledError
from worker_service.domain.outcome import Measures, Result, Verdict
from worker_service.operations.sqlite.analyze import LIMIT, change, limit_statements, with_change
from worker_service.operations.sqlite.measures import Statistics, statistics_changed
from worker_service.operations.sqlite.options import BUSY_TIMEOUT, Options
from worker_service.operations.sqlite.procedure import cancelled, completed
from worker_service.operations.sqlite.session import Session
from worker_service.operations.sqlite.sweep import Words, judge, statements_for, sweep
from worker_service.operations.wording import count

# 0x2 analyses where it seems worth it, 0x10 limits what that reads, 0x10000 looks at every table and not only
# at those this connection has used, 0x1 tells the statements and runs none.
DRY_RUN = "PRAGMA main.optimize(0x10003)"
RUN = "PRAGMA main.optimize(0x10012)"
_OLD_LIMIT = 400
_USEFUL_SINCE = (3, 46, 0)
_NEVER_ANALYSED = """
SELECT DISTINCT tbl_name FROM main.sqlite_schema
WHERE type = 'index' AND tbl_name NOT IN ({analysed}) AND tbl_name NOT GLOB 'sqlite_*'
ORDER BY tbl_name
"""
_WORDS = Words(noun="table", plural="tables", done="analysed")


class Optimize:
    """Renew the statistics where SQLite finds them missing or stale."""

    name = "optimize"
    description = "Analyse only what SQLite finds worth it."
    options = (LIMIT, BUSY_TIMEOUT)

    def plan(self, connection: apsw.Connection, options: Options, /) -> tuple[str, ...]:
        """The statement that runs, when SQLite's dry run finds anything."""
        if not optimizes_from_a_fresh_connection(apsw.sqlite_lib_version()):
            stale = [str(row[0]) for row in connection.execute(_never_analysed(connection))]
            return (_old_limit(options), *statements_for(stale, "ANALYZE").values()) if stale else ()
        return (*limit_statements(options), RUN) if _may_find(connection) else ()

    def run(self, session: Session, _before: Measures, /) -> Result:
        """Ask first what SQLite would analyse, then let it, and compare the statistics."""
        if not optimizes_from_a_fresh_connection(apsw.sqlite_lib_version()):
            return _run_old(session)
        wanted = session.names(DRY_RUN)
        if not wanted:
            reason = "SQLite finds no table whose statistics are missing or stale."
            return completed(Verdict.NO_EFFECT, reason, session.measures() | {"stat_rows_changed": 0.0})
        for statement in wanted:
            session.log("info", f"SQLite asks for {statement}")
        old = session.statistics()
        try:
            session.progress("optimize")
            for statement in (*limit_statements(session.options), RUN):
                session.rows(statement)
        except OperationCancelledError:
            return _stopped(session, old)
        changed = statistics_changed(old, session.statistics())
        return completed(*change(changed, "ran PRAGMA optimize"), with_change(session.measures(), changed))


def optimizes_from_a_fresh_connection(version: str) -> bool:
    """Tell whether ``PRAGMA optimize`` looks at tables that its own connection never queried."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3]) >= _USEFUL_SINCE


def _may_find(connection: apsw.Connection) -> bool:
    # From two tables on the dry run takes the lock for writing, though it writes nothing.
    connection.execute("PRAGMA query_only = 0")
    try:
        return bool(connection.execute(DRY_RUN).fetchall())
    except apsw.ReadOnlyError:
        # Beside a log the file was opened for reading only: the operation itself will ask.
        return True


def _run_old(session: Session) -> Result:
    # Before 3.46 the pragma does nothing from a fresh connection, so the tables without statistics are named.
    stale = session.names(_never_analysed(session.connection))
    if not stale:
        reason = "every table with an index has statistics, and this SQLite cannot tell whether they are stale."
        return completed(Verdict.NO_EFFECT, reason, session.measures() | {"stat_rows_changed": 0.0})
    old = session.statistics()
    session.rows(_old_limit(session.options))
    swept = sweep(session, "analyze", statements_for(stale, "ANALYZE"), "tables")
    changed = statistics_changed(old, session.statistics())
    verdict, reason = change(changed, f"analysed {_WORDS.count(len(swept.done))}")
    return judge(swept, _WORDS, verdict, reason, with_change(session.measures(), changed))


def _stopped(session: Session, old: Statistics | None) -> Result:
    changed = statistics_changed(old, session.statistics())
    text = f"stopped; {count(changed or 0, 'entry', 'entries')} of the statistics changed before."
    return cancelled(text, with_change(session.measures(), changed))


def _never_analysed(connection: apsw.Connection) -> str:
    analysed = "SELECT tbl FROM main.sqlite_stat1" if connection.table_exists("main", "sqlite_stat1") else ""
    return _NEVER_ANALYSED.format(analysed=analysed)


def _old_limit(options: Options) -> str:
    return f"PRAGMA main.analysis_limit = {options.numbers[LIMIT.name] or _OLD_LIMIT}"
