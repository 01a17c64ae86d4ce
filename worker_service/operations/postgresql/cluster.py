from collections.abc import Iterable, Mapping, Sequence

from worker_service.domain.inspection import Scope
from worker_service.domain.outcome import Failure, Result, Verdict
from worker_service.operations.options import FORMER_ATTEMPT
from worker_service.operations.postgresql.catalog import Reader, Table, read_tables
from worker_service.operations.postgresql.indexes import Index, read_indexes
from worker_service.operations.postgresql.inventory import Inventory
from worker_service.operations.postgresql.judging import Ledger, judge, nothing_there, version_of, with_numbers
from worker_service.operations.postgresql.leftovers import before_a_rewrite, drops_by_table, planned_drops
from worker_service.operations.postgresql.measures import file_measures, table_measures
from worker_service.operations.postgresql.names import Name
from worker_service.operations.postgresql.options import MAINTENANCE_MEMORY, Options, lock_timeout
from worker_service.operations.postgresql.procedure import skipped
from worker_service.operations.postgresql.progress import REWRITE, Watch
from worker_service.operations.postgresql.session import Session
from worker_service.operations.postgresql.sweep import Step, sweep
from worker_service.operations.postgresql.wanted import Keeps, Wanted, beginning_with

_WORDS = ("table", "tables", "clustered")
_UNMARKED = "no table is marked with an index to be clustered on: ALTER TABLE ... CLUSTER ON marks one."
_AFTER = "no page is all-visible and no statistics are renewed by it, so run vacuum and analyze next"


class Cluster:
    """Rewrite the tables that are marked for it in the order of their index; each is locked meanwhile."""

    name = "cluster"
    scope = Scope.TABLE
    description = (
        "Rewrite tables that have a clustering index in its order; locks everybody out of each meanwhile."
    )
    options = (MAINTENANCE_MEMORY, lock_timeout(10_000), FORMER_ATTEMPT)

    def check(self, _options: Options, /) -> None:
        """Take every combination."""

    def plan(self, read: Reader, _options: Options, subject: Name | None, /) -> tuple[str, ...]:
        """What drops the leftovers of broken-off rebuilds, then one statement a marked table."""
        statements = tuple(step.statement for step in _steps(_marked(read, version_of(read), subject)))
        return (*planned_drops(read, subject), *statements) if statements else ()

    def refusal(self, _read: Reader, _version: int, _options: Options, /) -> Failure | None:
        """Refuse nothing."""
        return None

    def keeps(self, _options: Options, /) -> Keeps:
        """Everybody."""
        return Keeps.EVERYBODY

    def wanted(
        self, read: Reader, inventory: Inventory, _options: Options, _scope: Scope, /
    ) -> Mapping[int, Wanted]:
        """What drops the leftovers on a marked table, and one statement."""
        plain = [table for table in inventory.tables if not table.is_parent]
        tables = _own_marked(plain, inventory.indexes)
        wanted = {
            table.oid: Wanted(
                statements=(step.statement,),
                why_not=inventory.why_not(table, by_owner=True),
                disk_bytes=inventory.live_bytes(table),
            )
            for table, step in zip(tables, _steps(tables), strict=True)
        }
        return beginning_with(wanted, drops_by_table(read, inventory.indexes)) if wanted else {}

    def run(self, session: Session, subject: Name | None, /) -> Result:
        """Rewrite each; a new file is what tells that it was done."""
        tables = _marked(session.rows, session.version, subject)
        before = file_measures(session.rows, subject) | table_measures(tables)
        if not tables:
            return skipped(_nothing(session, subject), before)
        before_each = before_a_rewrite(session, subject)
        steps = _steps(tables)
        with Watch(session, verb="cluster", total=len(steps), unit="tables", view=REWRITE) as watch:
            swept = sweep(session, steps, watch, before_each=lambda _: before_each)
        now = {table.oid: table for table in read_tables(session.rows, session.version, subject=subject)}
        done = [table for table in tables if table.oid in now and now[table.oid].file != table.file]
        ledger = Ledger(
            names=frozenset(table.name for table in tables),
            done=frozenset(table.name for table in done),
            swept=swept,
        )
        after = file_measures(session.rows, subject) | table_measures(
            now[one.oid] for one in tables if one.oid in now
        )
        del after["dead_rows"]  # the counters are not told of a rewrite
        found = (Verdict.EFFECTIVE, _AFTER)
        return judge(ledger, _WORDS, found, before=before, after=with_numbers(after, ledger, _WORDS))


def _marked(read: Reader, version: int, subject: Name | None) -> list[Table]:
    return _own_marked(read_tables(read, version, subject=subject), read_indexes(read, subject=subject))


def _own_marked(tables: Iterable[Table], indexes: Iterable[Index]) -> list[Table]:
    marked = {index.table_oid for index in indexes if index.clustered}
    own = [table for table in tables if table.oid in marked and not table.is_system]
    return sorted(own, key=lambda table: (-table.pages, str(table.name)))


def _steps(tables: Sequence[Table]) -> list[Step]:
    return [Step(name=table.name, statement=f"CLUSTER {table.name}") for table in tables]


def _nothing(session: Session, subject: Name | None) -> str:
    known = subject is None or read_tables(session.rows, session.version, subject=subject)
    return _UNMARKED if known else nothing_there("table", subject)
