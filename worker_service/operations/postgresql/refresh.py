from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import psycopg

from worker_service.domain.errors import OperationCancelledError
from worker_service.domain.inspection import Scope
from worker_service.domain.outcome import Failure, FailureCategory, Outcome, Result, Verdict
from worker_service.operations.options import FORMER_ATTEMPT
from worker_service.operations.postgresql.catalog import Reader
from worker_service.operations.postgresql.collations import Collation, changed_collations
from worker_service.operations.postgresql.failures import failed, failed_with, failure_of
from worker_service.operations.postgresql.indexes import Index, read_indexes
from worker_service.operations.postgresql.inventory import Inventory
from worker_service.operations.postgresql.judging import version_of
from worker_service.operations.postgresql.lanes import JOBS
from worker_service.operations.postgresql.leftovers import clean_up, with_leftovers
from worker_service.operations.postgresql.measures import size_measures
from worker_service.operations.postgresql.names import Name
from worker_service.operations.postgresql.options import MAINTENANCE_MEMORY, Options, lock_timeout
from worker_service.operations.postgresql.procedure import cancelled, completed, skipped
from worker_service.operations.postgresql.reindex import (
    CONCURRENTLY,
    damages,
    is_new,
    keeps_out,
    rebuild,
    rebuilding,
)
from worker_service.operations.postgresql.session import Session
from worker_service.operations.postgresql.sweep import Swept
from worker_service.operations.postgresql.wanted import Keeps, Wanted
from worker_service.operations.wording import count, listed

_CURRENT = "every collation has the version that its indexes were built by."
_NOT_OWNED = "only its owner or a superuser may note its version"
_UNRELIABLE = "it cannot be rebuilt concurrently: run it with concurrently=false"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What there is to do: collations, the indexes to rebuild for them, and what is left out and why."""

    collations: Sequence[Collation]
    indexes: Sequence[Index]
    left_out: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Done:
    """How many indexes were rebuilt, the collations whose version is noted, and what was not done and why."""

    rebuilt: int
    noted: Sequence[Collation]
    missed: Mapping[str, str]


class RefreshCollationVersion:
    """Rebuild the indexes of collations that changed with the operating system, and note their version.

    A new release of the system's library may sort texts otherwise: an index that was built before does not find
    rows any more. The version is noted only of a collation whose every index has a new file; otherwise the
    server's warning stays, which is right.
    """

    name = "refresh_collation_version"
    scope = Scope.DATABASE
    description = "Rebuild the indexes of collations that changed with the system, then note their version."
    options = (CONCURRENTLY, JOBS, MAINTENANCE_MEMORY, lock_timeout(60_000), FORMER_ATTEMPT)

    def check(self, _options: Options, /) -> None:
        """Take every combination."""

    def plan(self, read: Reader, options: Options, _subject: Name | None, /) -> tuple[str, ...]:
        """One statement an index, and one a collation."""
        work = _work(read, version_of(read), options)
        return (
            *(step.statement for step in rebuilding(work.indexes, options)),
            *(collation.statement for collation in work.collations),
        )

    def refusal(self, _read: Reader, version: int, options: Options, /) -> Failure | None:
        """Refuse where the server would damage what it rebuilds."""
        return damages(version, options)

    def keeps(self, options: Options, /) -> Keeps:
        """As a rebuild does."""
        return keeps_out(options)

    def wanted(
        self, read: Reader, inventory: Inventory, options: Options, _scope: Scope, /
    ) -> Mapping[int, Wanted]:
        """Only what the indexes need that are rebuilt: a collation is of the whole database."""
        return {
            index.oid: Wanted(statements=(), disk_bytes=inventory.index_bytes.get(index.oid, 0))
            for index in _work(read, inventory.version, options).indexes
        }

    def run(self, session: Session, _subject: Name | None, /) -> Result:
        """Rebuild, look which indexes are new, and note the version of the collations that have no other left."""
        if refused := damages(session.version, session.options):
            return failed_with(refused)
        work = _work(session.rows, session.version, session.options)
        before = _measures(session)
        if not work.collations:
            return _nothing(work, before)
        clean_up(session, None)
        swept = rebuild(session, work.indexes)
        _, remaining = clean_up(session, None)
        done = _noted(session, work, swept)
        numbers = {
            "indexes_rebuilt": float(done.rebuilt),
            "indexes_failed": float(len(swept.failures)),
            "collations_refreshed": float(len(done.noted)),
        }
        stopped = session.stop.is_set() and len(done.noted) < len(work.collations)
        result = _judged(done, swept, stopped=stopped, before=before, after={**_measures(session), **numbers})
        return with_leftovers(result, remaining)


def _noted(session: Session, work: _Work, swept: Swept) -> _Done:
    """Note the versions; what counts is what the catalogues say of indexes before, and of collations after it."""
    now = {index.name: index for index in read_indexes(session.rows)}
    rebuilt = frozenset(index.oid for index in work.indexes if is_new(index, now.get(index.name)))
    failures = {name.shown: failure.message for name, failure in swept.failures.items()}
    missed = {**work.left_out, **failures}
    # A rebuild beside others gives an index another number, so that those that are left are old ones.
    old = frozenset(index.oid for index in now.values()) - rebuilt
    tried = [one for one in work.collations if _note(session, one, old, missed)]
    left = {one.oid for one in changed_collations(session.rows, session.version)}
    return _Done(rebuilt=len(rebuilt), noted=[one for one in tried if one.oid not in left], missed=missed)


def _note(session: Session, collation: Collation, old: frozenset[int], missed: dict[str, str]) -> bool:
    """Note a collation's version where nothing is left that was sorted by another; tell whether it was."""
    if left := collation.depending & old:
        missed[collation.shown] = f"{count(len(left), 'index', 'indexes')} of it not rebuilt"
        return False
    try:
        session.checkpoint()
        session.run(collation.statement)
    except OperationCancelledError:
        return False
    except psycopg.Error as error:
        missed[collation.shown] = failure_of(error).message
        return False
    return True


def _judged(
    done: _Done, swept: Swept, *, stopped: bool, before: dict[str, float], after: dict[str, float]
) -> Result:
    told = f"rebuilt {count(done.rebuilt, 'index', 'indexes')}"
    noted = listed([f"{one.shown} {one.noted} to {one.actual}" for one in done.noted])
    if stopped:
        return cancelled(f"stopped after it {told}; noted: {noted or 'no version'}.", before, after)
    if not done.noted:
        text = f"It {told}, and no version was noted: {_list(done.missed)}."
        failure = _leading(swept.failures.values(), text)
        return Result(outcome=Outcome.FAILED, reason=text, failure=failure, before=before, after=after)
    if done.missed:
        text = f"{told}; noted {noted}; not done: {_list(done.missed)}."
        return completed(Verdict.PARTIALLY_EFFECTIVE, text, before, after)
    return completed(Verdict.EFFECTIVE, f"{told}; noted {noted}.", before, after)


def _work(read: Reader, version: int, options: Options) -> _Work:
    changed = changed_collations(read, version)
    every = {index.oid: index for index in read_indexes(read)} if changed else {}
    left_out = {one.shown: f"{_NOT_OWNED} ({one.statement})" for one in changed if not one.owned}
    wanted = {oid for one in changed if one.owned for oid in one.depending}
    indexes = [every[oid] for oid in wanted if oid in every]
    concurrently = options.flags[CONCURRENTLY.name]
    unfit = {one.name.shown: _UNRELIABLE for one in indexes if concurrently and (one.exclusion or one.is_system)}
    chosen = [one for one in indexes if one.name.shown not in unfit]
    return _Work(
        collations=[one for one in changed if one.owned],
        indexes=sorted(chosen, key=lambda index: (-index.pages, str(index.name))),
        left_out={**left_out, **unfit},
    )


def _nothing(work: _Work, measures: dict[str, float]) -> Result:
    if not work.left_out:
        return skipped(_CURRENT, measures)
    text = f"Collations changed, and the role may not do it: {_list(work.left_out)}."
    return failed("PERMISSION_DENIED", text, FailureCategory.PERMISSION)


def _measures(session: Session) -> dict[str, float]:
    changed = changed_collations(session.rows, session.version)
    return {**size_measures(session.rows), "changed_collations": float(len(changed))}


def _leading(failures: Iterable[Failure], text: str) -> Failure:
    for one in failures:
        return Failure(reason=one.reason, message=text, category=one.category, retryable=one.retryable)
    return Failure(reason="NOT_REFRESHED", message=text, category=FailureCategory.SCHEMA, retryable=False)


def _list(reasons: Mapping[str, str]) -> str:
    return listed([f"{name}: {reason.removesuffix('.')}" for name, reason in reasons.items()])
