from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from worker_service.domain.inspection import Scope
from worker_service.domain.outcome import Failure, Result, Verdict
from worker_service.operations.options import FORMER_ATTEMPT, FlagOption
from worker_service.operations.postgresql.catalog import (
    PARENT,
    PLAIN,
    VERSION_18,
    Reader,
    Table,
    maintained,
    only,
    read_tables,
)
from worker_service.operations.postgresql.inventory import Inventory
from worker_service.operations.postgresql.judging import Ledger, counting, judge, missing, version_of, with_numbers
from worker_service.operations.postgresql.lanes import JOBS
from worker_service.operations.postgresql.measures import table_measures, whole_measures
from worker_service.operations.postgresql.names import Name
from worker_service.operations.postgresql.options import COST_DELAY, COST_LIMIT, Options, lock_timeout
from worker_service.operations.postgresql.progress import ANALYZE, Watch
from worker_service.operations.postgresql.session import Session
from worker_service.operations.postgresql.sweep import Step, Swept, sweep
from worker_service.operations.postgresql.wanted import Keeps, Wanted
from worker_service.operations.wording import count

_SKIP_LOCKED = FlagOption(name="skip_locked", description="Pass over tables that are locked (default false).")
_KINDS = (*PLAIN, PARENT)
_STAT_ROWS = "SELECT count(*) FROM pg_stats"
# The server passes it over without a word.
_NEVER = Name(schema="pg_catalog", name="pg_statistic")
_WORDS = ("table", "tables", "analysed")
_SPLIT = "before PostgreSQL 18 its ANALYZE goes through all of its partitions, of which {} not selected"


class Analyze:
    """Renew the planner's statistics table by table, those of partitioned parents too."""

    name = "analyze"
    scope = Scope.TABLE
    description = "Renew the query planner's statistics of every table and partitioned parent."
    options = (_SKIP_LOCKED, JOBS, COST_DELAY, COST_LIMIT, lock_timeout(10_000), FORMER_ATTEMPT)

    def check(self, _options: Options, /) -> None:
        """Take every combination."""

    def plan(self, read: Reader, options: Options, subject: Name | None, /) -> tuple[str, ...]:
        """One statement a table; before PostgreSQL 18 one a tree of partitions."""
        version = version_of(read)
        tables, _ = maintained(_read(read, version, subject), subject=subject)
        return tuple(step.statement for step in _steps(tables, version, options))

    def refusal(self, _read: Reader, _version: int, _options: Options, /) -> Failure | None:
        """Refuse nothing."""
        return None

    def keeps(self, _options: Options, /) -> Keeps:
        """Maintenance alone."""
        return Keeps.MAINTENANCE

    def wanted(
        self, _read: Reader, inventory: Inventory, options: Options, _scope: Scope, /
    ) -> Mapping[int, Wanted]:
        """One statement a table; before PostgreSQL 18 that of a parent does its partitions too, if it is done."""
        tables, _ = maintained([one for one in inventory.tables if one.name != _NEVER], subject=None)
        meant = [table for table in tables if inventory.takes(table.name)]
        split = _split(inventory)
        why_not = {
            table.oid: inventory.why_not(table, by_owner=False) or split.get(table.oid, "") for table in meant
        }
        # What a parent is not analysed for, its partitions may be all the same.
        unfit = {table.oid: () for table in meant if table.is_parent and why_not[table.oid]}
        fit = {table.name: table for table in meant if table.oid not in unfit}
        steps = _steps(list(fit.values()), inventory.version, options)
        statements = {fit[step.name].oid: (step.statement,) for step in steps}
        # What is not meant is here too, so that it is known what there was to choose from.
        others = {table.oid: Wanted(statements=()) for table in tables if table.oid not in why_not}
        done = {**statements, **unfit}
        return {**others, **{oid: Wanted(statements=texts, why_not=why_not[oid]) for oid, texts in done.items()}}

    def run(self, session: Session, subject: Name | None, /) -> Result:
        """Analyse each; the server's counters tell for which of them that was done."""
        tables, left_out = maintained(_read(session.rows, session.version, subject), subject=subject)
        if not tables:
            return missing("table", subject, session)
        if left_out:
            session.log("info", f"{left_out} system catalogues are left to autovacuum.")
        before = _measures(session, tables, subject)
        swept = _sweep(session, tables)
        now = {table.oid: table for table in _read(session.rows, session.version, subject)}
        counted = counting(session)
        did = [
            (old, new)
            for old in tables
            if (new := now.get(old.oid)) and _was_done(old, new, swept, counted=counted)
        ]
        ledger = Ledger(
            names=frozenset(table.name for table in tables),
            done=frozenset(old.name for old, _ in did),
            swept=replace(swept, gone=swept.gone | {table.name for table in tables if table.oid not in now}),
        )
        after = _measures(session, list(now.values()), subject)
        return judge(ledger, _WORDS, judged(did), before=before, after=with_numbers(after, ledger, _WORDS))


def judged(did: Sequence[tuple[Table, Table]]) -> tuple[Verdict, str]:
    """Say what an analysis did; a table without rows has nothing to tell the planner."""
    if not any(new.rows > 0 or new.is_parent for _, new in did):
        return Verdict.NO_EFFECT, "without rows there are no statistics"
    changed = sum(old.modified_rows for old, _ in did)
    return Verdict.EFFECTIVE, f"{count(changed, 'row')} had changed since the last time"


def _sweep(session: Session, tables: Sequence[Table]) -> Swept:
    steps = _steps(tables, session.version, session.options)
    with Watch(session, verb="analyze", total=len(steps), unit="tables", view=ANALYZE) as watch:
        swept = sweep(session, steps, watch)
        covered = _covered(tables, session.version)
        ran = frozenset(name for name, parent in covered.items() if parent in swept.ran)
        swept = replace(swept, ran=swept.ran | ran)
        # The statement on a parent ends with the first partition that fails; the others are done one by one.
        alone = [table for table in tables if covered.get(table.name) in swept.failures]
        if not alone or swept.is_over:
            return swept
        rest = sweep(session, [_step(table, session.version, session.options) for table in alone], watch)
    return swept.then(rest)


def _steps(tables: Sequence[Table], version: int, options: Options) -> list[Step]:
    covered = _covered(tables, version)
    alone = [table for table in tables if table.name not in covered]
    ordered = sorted(alone, key=lambda table: (not table.is_parent, -table.pages, str(table.name)))
    return [_step(table, version, options) for table in ordered]


def _covered(tables: Iterable[Table], version: int) -> Mapping[Name, Name]:
    """Return whose statement does a table too: before PostgreSQL 18 a parent's goes through its partitions."""
    parents = {table.oid: table.name for table in tables if table.is_parent and version < VERSION_18}
    above = {table.name: [oid for oid in table.ancestors if oid in parents] for table in tables}
    return {name: parents[oids[-1]] for name, oids in above.items() if oids}


def _split(inventory: Inventory) -> Mapping[int, str]:
    """Tell by number why parents are left out whose statement would do partitions that are not meant."""
    if inventory.version >= VERSION_18:
        return {}
    left_out = [table for table in inventory.tables if table.ancestors and not inventory.takes(table.name)]
    numbers = Counter(oid for table in left_out for oid in table.ancestors)
    return {oid: _SPLIT.format(count(number, "is", "are")) for oid, number in numbers.items()}


def _step(table: Table, version: int, options: Options) -> Step:
    words = "(SKIP_LOCKED) " if options.flags[_SKIP_LOCKED.name] else ""
    return Step(name=table.name, statement=f"ANALYZE {words}{only(version)}{table.name}")


def _read(read: Reader, version: int, subject: Name | None) -> list[Table]:
    tables = [one for one in read_tables(read, version, kinds=_KINDS, subject=subject) if one.name != _NEVER]
    # From PostgreSQL 18 on a partitioned table that is named stands for itself: its partitions are named too.
    alone = [one for one in tables if one.name == subject and one.is_parent and version >= VERSION_18]
    return alone or tables


def _measures(session: Session, tables: Sequence[Table], subject: Name | None) -> dict[str, float]:
    measures = table_measures(tables)
    if subject is not None:
        return measures
    # The view shows what the role may select from: a maintainer who may read nothing sees no rows.
    rows = float(session.value(_STAT_ROWS))
    return whole_measures(session.rows, subject) | measures | {"stat_rows": rows}


def _was_done(old: Table, new: Table, swept: Swept, *, counted: Callable[[], bool]) -> bool:
    return new.analyzes > old.analyzes or (old.name in swept.ran and not counted())
