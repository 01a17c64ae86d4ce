from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from worker_service.domain.inspection import Scope
from worker_service.domain.outcome import Failure, FailureCategory, Outcome, Result, Verdict
from worker_service.operations.postgresql.catalog import Reader
from worker_service.operations.postgresql.failures import failed
from worker_service.operations.postgresql.indexes import TOAST, Index, may_use_toast, read_indexes
from worker_service.operations.postgresql.inventory import Inventory
from worker_service.operations.postgresql.judging import Ledger, judge, missing, with_numbers
from worker_service.operations.postgresql.measures import whole_measures
from worker_service.operations.postgresql.names import Name
from worker_service.operations.postgresql.options import FlagOption, Options, lock_timeout
from worker_service.operations.postgresql.progress import Watch
from worker_service.operations.postgresql.session import Session
from worker_service.operations.postgresql.sweep import Step, sweep
from worker_service.operations.postgresql.wanted import Keeps, Wanted, by_index_or_table
from worker_service.operations.postgresql.wording import count, listed, quoted

_HEAP = FlagOption(
    name="heapallindexed", description="Look for every row of the table in the index as well (default false)."
)
_PARENT = FlagOption(
    name="parent", description="Check how pages and their parents fit, which locks writers out (default false)."
)
# Two arguments are taken by every release; later ones have more with defaults.
_FUNCTIONS = """
SELECT n.nspname, bool_and(has_function_privilege(p.oid, 'EXECUTE'))
FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace
JOIN pg_proc AS p ON p.pronamespace = n.oid AND p.proname = %s
WHERE e.extname = 'amcheck' GROUP BY 1
"""
_MISSING = "The extension amcheck is not in this database: run CREATE EXTENSION amcheck there, as a superuser."
_WORDS = ("index", "indexes", "checked")
_SHOWN = 3


class Amcheck:
    """Check every B-tree index by the extension amcheck; it only looks.

    A check that ran to its end and found nothing is effective: what it was asked for, it gave. One that found
    damage is failed, so that a job cannot look well when its database is not.
    """

    name = "amcheck"
    scope = Scope.INDEX
    description = "Check every B-tree index for damage; needs the extension amcheck."
    options = (_HEAP, _PARENT, lock_timeout(10_000))

    def check(self, _options: Options, /) -> None:
        """Take every combination."""

    def plan(self, read: Reader, options: Options, subject: Name | None, /) -> tuple[str, ...]:
        """One call an index; none without the extension."""
        found = read(_FUNCTIONS, _function(options))
        if not found:
            return ()
        return tuple(step.statement for step in _steps(_chosen(read, subject), found[0][0], options))

    def keeps(self, options: Options, /) -> Keeps:
        """Writers where the levels of the tree are compared, and otherwise nobody."""
        return Keeps.WRITERS if options.flags[_PARENT.name] else Keeps.NOBODY

    def wanted(
        self, read: Reader, inventory: Inventory, options: Options, scope: Scope, /
    ) -> Mapping[int, Wanted]:
        """One call an index, or those of a table's; without the extension each says that it is missing."""
        found = read(_FUNCTIONS, _function(options))
        indexes = _checked(inventory.indexes, toast=inventory.toast)
        steps = _steps(indexes, found[0][0] if found else "public", options)
        return by_index_or_table(inventory, zip(indexes, steps, strict=True), scope, by_owner=None)

    def run(self, session: Session, subject: Name | None, /) -> Result:
        """Check each; damage is an error of its own kind."""
        options = session.options
        found = session.rows(_FUNCTIONS, _function(options))
        if not found:
            return failed("EXTENSION_MISSING", _MISSING, FailureCategory.INVALID)
        schema, permitted = found[0]
        if not permitted:
            text = (
                f"The worker's role may not run {_function(options)}: GRANT EXECUTE on the extension's functions."
            )
            return failed("PERMISSION_DENIED", text, FailureCategory.PERMISSION)
        indexes = _chosen(session.rows, subject)
        if not indexes:
            return missing("B-tree index", subject, session)
        before = whole_measures(session.rows, subject)
        steps = _steps(indexes, schema, options)
        with Watch(session, verb="amcheck", total=len(steps), unit="indexes", view=None) as watch:
            swept = sweep(session, steps, watch)
        ledger = Ledger(names=frozenset(index.name for index in indexes), done=swept.ran, swept=swept)
        after = with_numbers(before, ledger, _WORDS)
        damaged = {name: one for name, one in ledger.failures.items() if one.category is FailureCategory.CORRUPT}
        if damaged:
            return replace(_damaged(damaged), before=before, after={**after, "errors_found": float(len(damaged))})
        return judge(ledger, _WORDS, (Verdict.EFFECTIVE, "no damage found"), before=before, after=after)


def _damaged(failures: dict[str, Failure]) -> Result:
    shown = listed([f"{name}: {failure.message}" for name, failure in failures.items()], _SHOWN)
    text = f"{count(len(failures), 'index is', 'indexes are')} damaged: {shown}"
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
    heap = str(bool(options.flags[_HEAP.name])).lower()
    return [
        Step(
            name=index.name,
            statement=f"{call}({_literal(str(index.name))}::regclass, {heap})",
            table=index.table_oid,
        )
        for index in indexes
    ]


def _literal(text: str) -> str:
    """Quote a text for PostgreSQL, whatever it contains."""
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'" if "\\" in text else f"'{escaped}'"
