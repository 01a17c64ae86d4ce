from worker_service.domain.outcome import Result, Verdict
from worker_service.operations.mariadb.answers import Fate
from worker_service.operations.mariadb.options import BINLOG, LOCK_TIMEOUT, Options
from worker_service.operations.mariadb.procedure import Facts, judge
from worker_service.operations.mariadb.tables import ENGINES_ELSEWHERE, Table, reading_keeps_out
from worker_service.operations.mariadb.wording import quoted
from worker_service.operations.options import FORMER_ATTEMPT, FlagOption
from worker_service.operations.wording import count

_PERSISTENT = FlagOption(
    name="persistent",
    description="Read every row for MariaDB's own statistics of columns and indexes too (default false).",
)
_GRANT = "grant SELECT on mysql.innodb_table_stats, so that its dates can be read"


class Analyze:
    """Renew the optimizer's statistics, table by table."""

    name = "analyze"
    description = "Renew the optimizer's statistics of every table (ANALYZE TABLE)."
    options = (_PERSISTENT, BINLOG, LOCK_TIMEOUT, FORMER_ATTEMPT)
    only_looks = False
    copies = False
    engines_left_alone = ENGINES_ELSEWHERE

    def statement(self, table: Table, options: Options, /) -> str:
        """One statement a table."""
        words = "ANALYZE TABLE" if options[BINLOG.name] else "ANALYZE NO_WRITE_TO_BINLOG TABLE"
        every = " PERSISTENT FOR ALL" if options[_PERSISTENT.name] else ""
        return f"{words} {quoted(table.name)}{every}"

    def keeps_out(self, table: Table, _options: Options, /) -> str:
        """Nobody, but of an engine that locks the table as a whole."""
        return reading_keeps_out(table)

    def judge(self, facts: Facts, /) -> Result:
        """Judge by the dates of the statistics that InnoDB keeps, where the role may read them."""
        swept = facts.swept
        measures = {
            "tables_analyzed": float(len(swept.having(Fate.DONE))),
            "tables_failed": float(len(swept.having(Fate.FAILED, Fate.INTERRUPTED))),
        }
        return judge(facts, "analysed", measures, lambda _: _verdict(facts))


def _verdict(facts: Facts) -> tuple[Verdict, str]:
    names = facts.swept.having(Fate.DONE)
    if not names:
        return Verdict.NO_EFFECT, "the statistics were already up to date"
    if facts.renewed is None:
        return Verdict.UNKNOWN, f"the server said OK of {count(len(names), 'table')}; to tell more, {_GRANT}"
    stale = [name for name in names if facts.renewed.get(name) is False]
    unkept = [name for name in names if name not in facts.renewed and facts.before.tables[name].is_innodb]
    done = len(names) - len(stale) - len(unkept)
    told = f"analysed {count(done, 'table')}"
    if stale and not done and not unkept:
        return Verdict.NO_EFFECT, f"the statistics of {', '.join(stale[:5])} are still old"
    if stale:
        return Verdict.PARTIALLY_EFFECTIVE, f"{told}; the statistics of {', '.join(stale[:5])} are still old"
    if unkept and not done:
        return Verdict.UNKNOWN, f"the server said OK of {count(len(unkept), 'table')} and keeps no dates of theirs"
    more = f"; of {count(len(unkept), 'table')} more the server keeps no dates" if unkept else ""
    return Verdict.EFFECTIVE, told + more
