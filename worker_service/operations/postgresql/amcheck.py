from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from worker_service.domain.inspection import Scope
from worker_service.domain.outcome import Failure, FailureCategory, Outcome, Result, Verdict
from worker_service.operations.options import FORMER_ATTEMPT, FlagOption
from worker_service.operations.postgresql.catalog import Reader
from worker_service.operations.postgresql.failures import failed_with
from worker_service.operations.postgresql.heapcheck import (
    FUNCTION,
    Heap,
    damage_in,
    heap_steps,
    read_heaps,
    why_unchecked,
)
from worker_service.operations.postgresql.indexes import TOAST, Index, may_use_toast, read_indexes
from worker_service.operations.postgresql.inventory import Inventory
from worker_service.operations.postgresql.judging import Ledger, judge, missing
from worker_service.operations.postgresql.lanes import JOBS
from worker_service.operations.postgresql.measures import whole_measures
from worker_service.operations.postgresql.names import Name
from worker_service.operations.postgresql.options import Options, lock_timeout
from worker_service.operations.postgresql.progress import Watch
from worker_service.operations.postgresql.session import Row, Session
from worker_service.operations.postgresql.sweep import Step, sweep
from worker_service.operations.postgresql.wanted import Keeps, Wanted, by_index_or_table
from worker_service.operations.postgresql.wording import literal, quoted
from worker_service.operations.wording import count, listed

_HEAP = FlagOption(
    name="heap",
    description="Read the pages and rows of tables too; not where a single index is checked (default true).",
    default=True,
)
_ALL_INDEXED = FlagOption(
    name="heapallindexed", description="Look for every row of the table in the index as well (default false)."
)
_PARENT = FlagOption(
    name="parent", description="Check how pages and their parents fit, which locks writers out (default false)."
)
# Two arguments are taken by every release; later ones have more with defaults.
_FUNCTIONS = """
SELECT n.nspname, bool_and(has_function_privilege(p.oid, 'EXECUTE') AND has_schema_privilege(n.oid, 'USAGE'))
FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace
JOIN pg_proc AS p ON p.pronamespace = n.oid AND p.proname = %s
WHERE e.extname = 'amcheck' GROUP BY 1
"""
_MISSING = "The extension amcheck is not in this database: run CREATE EXTENSION amcheck there, as a superuser."
_GRANT = "GRANT EXECUTE on the extension's functions, and USAGE on their schema"
_WORDS = ("index or table", "indexes and tables", "checked")
_SHOWN = 3


class Amcheck:
    """Check every B-tree index and every table by the extension amcheck; it only looks.

    A check that ran to its end and found nothing is effective: what it was asked for, it gave. One that found
    damage is failed, so that a job cannot look well when its database is not. A single index is checked without
    its table, which all its indexes would have checked again.
    """

    name = "amcheck"
    scope = Scope.INDEX
    description = "Check B-tree indexes and tables for damage; needs the extension amcheck."
    options = (_HEAP, _ALL_INDEXED, _PARENT, JOBS, lock_timeout(10_000), FORMER_ATTEMPT)

    def check(self, _options: Options, /) -> None:
        """Take every combination."""

    def plan(self, read: Reader, options: Options, subject: Name | None, /) -> tuple[str, ...]:
        """One call a table and one an index; none without the extension or the right to run it."""
        found = read(_FUNCTIONS, _function(options))
        if _refused(found, options):
            return ()
        heaps, _ = _heaps(read, options, subject)
        steps = [*heap_steps(heaps, found[0][0]), *_steps(_chosen(read, subject), found[0][0], options)]
        return tuple(step.statement for step in steps)

    def refusal(self, read: Reader, _version: int, options: Options, /) -> Failure | None:
        """Refuse without the extension, and without the right to run it."""
        return _refused(read(_FUNCTIONS, _function(options)), options)

    def keeps(self, options: Options, /) -> Keeps:
        """Writers where the levels of the tree are compared, and otherwise nobody."""
        return Keeps.WRITERS if options.flags[_PARENT.name] else Keeps.NOBODY

    def wanted(
        self, read: Reader, inventory: Inventory, options: Options, scope: Scope, /
    ) -> Mapping[int, Wanted]:
        """One call an index, or those of a table's with the table's own; nothing where it is refused."""
        found = read(_FUNCTIONS, _function(options))
        schema = found[0][0] if found else ""
        indexes = _checked(inventory.indexes, toast=inventory.toast)
        steps = _steps(indexes, schema, options)
        wanted = by_index_or_table(inventory, zip(indexes, steps, strict=True), scope, by_owner=None)
        if scope is Scope.INDEX:
            return wanted
        heaps = read_heaps(read, None) if options.flags[_HEAP.name] else []
        unchecked = why_unchecked(read(_FUNCTIONS, FUNCTION)) if heaps else None
        if unchecked:
            nothing = Wanted(statements=(), why_not=unchecked.message)
            return {**dict.fromkeys((heap.oid for heap in heaps), nothing), **wanted}
        return _with_heaps(inventory, wanted, heap_steps(heaps, schema))

    def run(self, session: Session, subject: Name | None, /) -> Result:
        """Check each; damage is an error of its own kind, or a row of the answer."""
        options = session.options
        found = session.rows(_FUNCTIONS, _function(options))
        if refused := _refused(found, options):
            return failed_with(refused)
        schema = found[0][0]
        indexes = _chosen(session.rows, subject)
        heaps, why_not = _heaps(session.rows, options, subject)
        if why_not and not indexes:
            return failed_with(why_not)
        if not indexes and not heaps:
            return missing("B-tree index or table", subject, session)
        before = whole_measures(session.rows, subject)
        steps = [*heap_steps(heaps, schema), *_steps(indexes, schema, options)]
        with Watch(session, verb="amcheck", total=len(steps), unit="objects", view=None) as watch:
            swept = sweep(session, steps, watch, read=damage_in)
        ledger = Ledger(names=frozenset(step.name for step in steps), done=swept.ran, swept=swept)
        of_tables = frozenset(heap.name for heap in heaps)
        after = {**before, **_numbers(ledger, of_tables)}
        damaged = {name: one for name, one in swept.failures.items() if one.category is FailureCategory.CORRUPT}
        if damaged:
            numbers = {**after, "errors_found": float(len(damaged))}
            return replace(_damaged(damaged, of_tables), before=before, after=numbers)
        return judge(ledger, _WORDS, _sound(after, why_not), before=before, after=after)


def _refused(found: Sequence[Row], options: Options) -> Failure | None:
    """Tell why nothing can be checked, from the function's schema and the role's right on it, if it is there."""
    if not found:
        return Failure(
            reason="EXTENSION_MISSING", message=_MISSING, category=FailureCategory.INVALID, retryable=False
        )
    if found[0][1]:
        return None
    text = f"The worker's role may not run {_function(options)}: {_GRANT}."
    return Failure(reason="PERMISSION_DENIED", message=text, category=FailureCategory.PERMISSION, retryable=False)


def _heaps(read: Reader, options: Options, subject: Name | None) -> tuple[list[Heap], Failure | None]:
    """Return the tables that are checked, and why none is although it was asked for."""
    if not options.flags[_HEAP.name]:
        return [], None
    heaps = read_heaps(read, subject)
    why_not = why_unchecked(read(_FUNCTIONS, FUNCTION)) if heaps else None
    return ([], why_not) if why_not else (heaps, None)


def _with_heaps(inventory: Inventory, wanted: Mapping[int, Wanted], steps: Iterable[Step]) -> Mapping[int, Wanted]:
    """Put the call for each table before those for its indexes."""
    tables = {table.oid: table for table in inventory.tables}
    nothing = Wanted(statements=())
    of_tables = {
        step.table: Wanted(
            statements=(step.statement, *wanted.get(step.table, nothing).statements),
            why_not=inventory.why_not(tables[step.table], by_owner=None),
        )
        for step in steps
        if step.table in tables
    }
    return {**wanted, **of_tables}


def _numbers(ledger: Ledger, tables: frozenset[Name]) -> dict[str, float]:
    failed_ones = ledger.names - ledger.done - ledger.swept.gone
    return {
        "indexes_checked": float(len(ledger.done - tables)),
        "indexes_failed": float(len(failed_ones - tables)),
        "tables_checked": float(len(ledger.done & tables)),
        "tables_failed": float(len(failed_ones & tables)),
    }


def _sound(numbers: Mapping[str, float], why_not: Failure | None) -> tuple[Verdict, str]:
    """Word what was checked, of the two kinds."""
    indexes, tables = numbers["indexes_checked"], numbers["tables_checked"]
    parts = [count(indexes, "index", "indexes")] if indexes or not tables else []
    parts += [f"the rows of {count(tables, 'table')}"] if tables else []
    told = f"no damage found in {' and '.join(parts)}"
    if why_not:
        return Verdict.PARTIALLY_EFFECTIVE, f"{told}; tables were not checked: {why_not.message}"
    return Verdict.EFFECTIVE, told


def _damaged(failures: Mapping[Name, Failure], tables: frozenset[Name]) -> Result:
    of_indexes, of_tables = len(failures.keys() - tables), len(failures.keys() & tables)
    parts = [count(of_indexes, "index", "indexes")] if of_indexes else []
    parts += [count(of_tables, "table")] if of_tables else []
    shown = listed([f"{name.shown}: {failure.message}" for name, failure in failures.items()], _SHOWN)
    text = f"{' and '.join(parts)} {'is' if len(failures) == 1 else 'are'} damaged: {shown}"
    failure = Failure(reason="DAMAGED", message=text, category=FailureCategory.CORRUPT, retryable=False)
    return Result(outcome=Outcome.FAILED, reason=text, failure=failure)


def _function(options: Options) -> str:
    return "bt_index_parent_check" if options.flags[_PARENT.name] else "bt_index_check"


def _chosen(read: Reader, subject: Name | None) -> list[Index]:
    return _checked(read_indexes(read, subject=subject), toast=may_use_toast(read))


def _checked(indexes: Iterable[Index], *, toast: bool) -> list[Index]:
    found = [
        index
        for index in indexes
        if index.method == "btree" and index.valid and (toast or index.table.schema != TOAST)
    ]
    return sorted(found, key=lambda index: (-index.pages, str(index.name)))


def _steps(indexes: Sequence[Index], schema: str, options: Options) -> list[Step]:
    call = f"SELECT {quoted(schema)}.{_function(options)}"
    heap = str(bool(options.flags[_ALL_INDEXED.name])).lower()
    return [
        Step(
            name=index.name,
            statement=f"{call}({literal(str(index.name))}::regclass, {heap})",
            table=index.table_oid,
        )
        for index in indexes
    ]
