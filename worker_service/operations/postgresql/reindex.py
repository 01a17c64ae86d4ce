from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from worker_service.domain.inspection import Scope
from worker_service.domain.outcome import Failure, FailureCategory, Measures, Result, Verdict
from worker_service.operations.options import FORMER_ATTEMPT, FlagOption
from worker_service.operations.postgresql.catalog import Reader
from worker_service.operations.postgresql.failures import failed_with
from worker_service.operations.postgresql.indexes import (
    TOAST,
    Index,
    leftovers,
    may_use_toast,
    meant,
    read_beside,
    read_indexes,
    revived,
)
from worker_service.operations.postgresql.inventory import Inventory
from worker_service.operations.postgresql.judging import Ledger, judge, nothing_there, version_of, with_numbers
from worker_service.operations.postgresql.lanes import JOBS
from worker_service.operations.postgresql.leftovers import clean_up, drops, drops_by_table, with_leftovers
from worker_service.operations.postgresql.measures import file_measures
from worker_service.operations.postgresql.names import Name
from worker_service.operations.postgresql.options import MAINTENANCE_MEMORY, Options, lock_timeout
from worker_service.operations.postgresql.patience import Patience
from worker_service.operations.postgresql.procedure import skipped
from worker_service.operations.postgresql.progress import INDEX, Watch
from worker_service.operations.postgresql.session import Session
from worker_service.operations.postgresql.sweep import Step, Swept, sweep
from worker_service.operations.postgresql.wanted import Keeps, Wanted, beginning_with, by_index_or_table
from worker_service.operations.wording import count, listed

CONCURRENTLY = FlagOption(
    name="concurrently",
    description="Rebuild beside readers and writers; false locks writers out meanwhile (default true).",
    default=True,
)
_WORDS = ("index", "indexes", "rebuilt")
_DAMAGING = range(140_000, 140_004)

_SYSTEM = "the system's catalogues cannot be rebuilt beside others"
_TOAST = "the role may not use the schema pg_toast"
_TWIN = (
    "it is valid, and named as what a broken-off rebuild leaves: a rewrite of the table may have made it valid. "
    "It costs each write as much as the index it is named after: compare the two, and drop it if it is a copy."
)
_EXCLUSION = "an exclusion constraint's index cannot be rebuilt concurrently: run it with concurrently=false"


class Reindex:
    """Rebuild every index, one by one, beside readers and writers."""

    name = "reindex"
    scope = Scope.INDEX
    description = "Rebuild every index, concurrently unless that is switched off."
    options = (CONCURRENTLY, JOBS, MAINTENANCE_MEMORY, lock_timeout(60_000), FORMER_ATTEMPT)

    def check(self, _options: Options, /) -> None:
        """Take every combination."""

    def plan(self, read: Reader, options: Options, subject: Name | None, /) -> tuple[str, ...]:
        """Drop the leftovers of earlier rebuilds, then one statement an index; none where it is refused."""
        if damages(version_of(read), options):
            return ()
        every = read_beside(read, subject=subject)
        wanted = every if subject is None else meant(read, every, subject)
        left = leftovers(every)
        chosen, _ = choose(wanted, left, options, toast=_toast(read, wanted), named=subject is not None)
        return (*drops(read, left), *(step.statement for step in rebuilding(chosen, options)))

    def refusal(self, _read: Reader, version: int, options: Options, /) -> Failure | None:
        """Refuse where the server would damage what it rebuilds."""
        return damages(version, options)

    def keeps(self, options: Options, /) -> Keeps:
        """Maintenance alone, where it is done beside readers and writers."""
        return keeps_out(options)

    def wanted(
        self, read: Reader, inventory: Inventory, options: Options, scope: Scope, /
    ) -> Mapping[int, Wanted]:
        """What drops the leftovers on a table, before one statement an index, or those of a table's.

        Of several single indexes of a table the first that is rebuilt drops them.
        """
        left = leftovers(inventory.indexes)
        chosen, _ = choose(inventory.indexes, left, options, toast=inventory.toast, named=False)
        steps = zip(chosen, rebuilding(chosen, options), strict=True)
        wanted = by_index_or_table(inventory, steps, scope, by_owner=True, copies=True)
        dropped = drops_by_table(read, inventory.indexes)
        if scope is Scope.INDEX:
            dropped = {one.oid: dropped[one.table_oid] for one in inventory.indexes if one.table_oid in dropped}
        other = [
            index
            for index in inventory.indexes
            if index.exclusion and not index.is_system and options.flags[CONCURRENTLY.name]
        ]
        numbers = {index.oid if scope is Scope.INDEX else index.table_oid for index in other}
        unfit = {oid: Wanted(statements=(), why_not=_EXCLUSION) for oid in numbers}
        return {**unfit, **beginning_with(wanted, dropped)}

    def run(self, session: Session, subject: Name | None, /) -> Result:
        """Rebuild each; a new file and a valid index are what tells that it was done."""
        if refused := damages(session.version, session.options):
            return failed_with(refused)
        every, remaining = clean_up(session, subject)
        for index in revived(every):
            session.log("warning", f"{index.name.shown}: {_TWIN}")
        wanted = every if subject is None else meant(session.rows, every, subject)
        chosen, left_out = choose(
            wanted, remaining, session.options, toast=_toast(session.rows, wanted), named=subject is not None
        )
        before = _measures(session, every, subject)
        if not chosen:
            return skipped(_nothing(subject, left_out), before)
        swept = rebuild(session, chosen)
        now, remaining = clean_up(session, subject)
        after = _measures(session, now, subject)
        result = _judge(chosen, swept, now, (before, after), note=_told(left_out))
        return with_leftovers(result, remaining)


def damages(version: int, options: Options) -> Failure | None:
    """Refuse where the server would damage what it rebuilds."""
    if not options.flags[CONCURRENTLY.name] or version not in _DAMAGING:
        return None
    text = "PostgreSQL 14.0 to 14.3 damage indexes that they rebuild concurrently: upgrade to 14.4 or later."
    return Failure(reason="DAMAGES_INDEXES", message=text, category=FailureCategory.INVALID, retryable=False)


def keeps_out(options: Options) -> Keeps:
    """Tell whom a rebuild keeps out."""
    return Keeps.MAINTENANCE if options.flags[CONCURRENTLY.name] else Keeps.USERS_OF_THE_INDEX


def choose(
    wanted: Iterable[Index], left: Iterable[Index], options: Options, *, toast: bool, named: bool
) -> tuple[list[Index], Mapping[str, int]]:
    """Choose what is rebuilt, the largest first; return it, and how many are left out for which reason.

    Of a whole database the system's own are passed over in silence.
    """
    chosen: list[Index] = []
    why: Counter[str] = Counter()
    leftover = {index.name for index in left}
    for index in wanted:
        if index.name in leftover:
            continue
        if index.is_system:
            why.update([_SYSTEM] if named else [])
        elif index.table.schema == TOAST and not toast:
            why.update([_TOAST] if named else [])
        elif index.exclusion and options.flags[CONCURRENTLY.name]:
            why.update([_EXCLUSION])
        else:
            chosen.append(index)
    return sorted(chosen, key=lambda index: (-index.pages, str(index.name))), why


def rebuild(session: Session, indexes: Sequence[Index]) -> Swept:
    """Rebuild indexes; which were rebuilt the catalogues tell (``is_new``).

    Of several jobs each would wait for another's rebuild of an index with an expression or a condition: those come
    last, one by one.
    """
    concurrently = bool(session.options.flags[CONCURRENTLY.name])
    former = {index.name: index for index in indexes}
    before_each: Callable[[Session], Callable[[Step], Failure | None]] = (
        Patience if concurrently else lambda _: lambda _: None
    )
    together = [index for index in indexes if not index.waited_for]
    last = [index for index in indexes if index.waited_for]
    with Watch(session, verb="reindex", total=len(indexes), unit="indexes", view=INDEX) as watch:

        def done(some: Sequence[Index], jobs: int | None) -> Swept:
            return sweep(
                session,
                rebuilding(some, session.options),
                watch,
                before_each=before_each,
                again=lambda step: not _rebuilt(session, step, former),
                jobs=jobs,
            )

        if (session.options.numbers[JOBS.name] or 1) == 1 or not concurrently:
            return done(indexes, None)
        swept = done(together, None)
        return swept if swept.is_over or not last else swept.then(done(last, 1))


def _judge(
    chosen: Sequence[Index],
    swept: Swept,
    now: Iterable[Index],
    measures: tuple[Measures, Measures],
    *,
    note: str,
) -> Result:
    by_name = {index.name: index for index in now}
    before, after = measures
    ledger = Ledger(
        names=frozenset(index.name for index in chosen),
        done=frozenset(index.name for index in chosen if is_new(index, by_name.get(index.name))),
        swept=swept,
    )
    late = [name.shown for name in swept.failures if name in ledger.done]
    parts = [note] if note else []
    if late:
        parts.append(f"in spite of an error at its end: {listed(late)}")
    numbered = with_numbers(after, ledger, _WORDS)
    return judge(ledger, _WORDS, (Verdict.EFFECTIVE, "; ".join(parts)), before=before, after=numbered)


def _rebuilt(session: Session, step: Step, former: Mapping[Name, Index]) -> bool:
    # A time-out at the very end of a rebuild comes after the new index has taken the old one's place.
    return any(is_new(former[step.name], now) for now in read_indexes(session.rows, subject=step.name))


def is_new(old: Index, new: Index | None) -> bool:
    """Tell whether an index was rebuilt since it was looked at: it has another file, and is valid."""
    return new is not None and new.valid and new.file != old.file


def rebuilding(indexes: Iterable[Index], options: Options) -> list[Step]:
    """Word one statement an index."""
    word = " CONCURRENTLY" if options.flags[CONCURRENTLY.name] else ""
    return [
        Step(name=index.name, statement=f"REINDEX INDEX{word} {index.name}", table=index.table_oid)
        for index in indexes
    ]


def _toast(read: Reader, indexes: Iterable[Index]) -> bool:
    return any(index.table.schema == TOAST for index in indexes) and may_use_toast(read)


def _measures(session: Session, indexes: Iterable[Index], subject: Name | None) -> dict[str, float]:
    own = [index for index in indexes if not index.is_system]
    return {
        **file_measures(session.rows, subject),
        "indexes": float(len(own)),
        "index_pages": float(sum(index.pages for index in own)),
        "invalid_indexes": float(sum(not index.valid for index in own)),
    }


def _nothing(subject: Name | None, left_out: Mapping[str, int]) -> str:
    if left_out:
        return f"nothing to rebuild; {_told(left_out)}."
    if subject is None:
        return "the database has no index but the system's own."
    return nothing_there("index", subject)


def _told(left_out: Mapping[str, int]) -> str:
    return "; ".join(f"{count(number, 'index', 'indexes')} left out, {why}" for why, number in left_out.items())
