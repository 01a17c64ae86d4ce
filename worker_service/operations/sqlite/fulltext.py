import re

import apsw

from worker_service.domain.outcome import Measures, Result, Verdict
from worker_service.operations.sqlite.options import BUSY_TIMEOUT, Options
from worker_service.operations.sqlite.procedure import skipped
from worker_service.operations.sqlite.session import Session
from worker_service.operations.sqlite.sweep import Words, judge, sweep
from worker_service.operations.sqlite.wording import quoted

_VIRTUAL = "SELECT name, sql FROM main.sqlite_schema WHERE type = 'table' AND rootpage = 0 ORDER BY name"
_MODULE = re.compile(r"\bUSING\s+[\"'`\[]?fts[345]\b", re.IGNORECASE)
_WORDS = Words(noun="full-text table", plural="full-text tables", done="merged")


class FtsOptimize:
    """Merge the segments of every full-text index into one."""

    name = "fts_optimize"
    description = "Merge each full-text index (FTS3, 4, 5) into one segment."
    options = (BUSY_TIMEOUT,)

    def plan(self, connection: apsw.Connection, _options: Options, /) -> tuple[str, ...]:
        """One statement a full-text table."""
        rows = [(str(name), str(sql)) for name, sql in connection.execute(_VIRTUAL)]
        return tuple(_statements(rows).values())

    def run(self, session: Session, _before: Measures, /) -> Result:
        """Merge each; SQLite writes a single row where there was nothing to merge."""
        statements = _statements([(str(name), str(sql)) for name, sql in session.rows(_VIRTUAL)])
        if not statements:
            return skipped("the database has no full-text table.", session.measures())
        changes = session.connection.total_changes()
        swept = sweep(session, "merge", statements, "tables")
        written = session.connection.total_changes() - changes
        done = _WORDS.count(len(swept.done))
        if written > len(swept.done):
            return judge(swept, _WORDS, Verdict.EFFECTIVE, f"merged {done}.", session.measures())
        reason = f"nothing to merge in {done}."
        return judge(swept, _WORDS, Verdict.NO_EFFECT, reason, session.measures())


def _statements(rows: list[tuple[str, str]]) -> dict[str, str]:
    return {
        name: f"INSERT INTO main.{quoted(name)}({quoted(name)}) VALUES('optimize')"
        for name, sql in rows
        if _MODULE.search(sql)
    }
