"""Dropping what concurrent rebuilds have left that were broken off, before anything makes it valid."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import psycopg

from worker_service.domain.outcome import Failure, FailureCategory, Result, Verdict
from worker_service.operations.postgresql.catalog import Reader
from worker_service.operations.postgresql.failures import failure_of
from worker_service.operations.postgresql.indexes import Index, being_built, is_being_built, leftovers, read_beside
from worker_service.operations.postgresql.names import Name
from worker_service.operations.postgresql.session import Session
from worker_service.operations.postgresql.sweep import Step
from worker_service.operations.wording import listed


def clean_up(session: Session, subject: Name | None) -> tuple[list[Index], list[Index]]:
    """Drop the leftovers of concurrent rebuilds that nobody works on; return the indexes, and what is still left.

    These are all indexes on the tables of a single object's, or of the database.
    """
    every = read_beside(session.rows, subject=subject)
    found = leftovers(every)
    for index in found:
        if is_being_built(session.rows, index, [session.pid]):
            session.log("info", f"{index.name.shown}: left alone, another session may be building it.")
            continue
        try:
            session.repair(drop(index))
        except psycopg.Error as error:
            session.log("warning", f"{index.name.shown}: could not be dropped: {failure_of(error).message}")
        else:
            session.log("info", f"{index.name.shown}: dropped, it was left by a rebuild that was broken off.")
    if not found:
        return every, []
    now = read_beside(session.rows, subject=subject)
    return now, leftovers(now)


def with_leftovers(result: Result, remaining: Sequence[Index]) -> Result:
    """Tell in a result, whatever it is, which leftovers are still there; with any it is at best a part."""
    if not remaining:
        return result
    left = f" Invalid leftovers remain: {listed([index.name.shown for index in remaining])}."
    failure = result.failure and replace(result.failure, message=result.failure.message + left)
    verdict = Verdict.PARTIALLY_EFFECTIVE if result.verdict is Verdict.EFFECTIVE else result.verdict
    return replace(result, verdict=verdict, reason=result.reason + left, failure=failure)


def drop(index: Index) -> str:
    """Word the statement that drops a leftover; one that somebody dropped meanwhile is no error."""
    return f"DROP INDEX CONCURRENTLY IF EXISTS {index.name}"


def drops(read: Reader, left: Sequence[Index]) -> tuple[str, ...]:
    """Word what drops the leftovers that nobody works on."""
    return tuple(drop(index) for index in _free(read, left))


def drops_by_table(read: Reader, indexes: Iterable[Index]) -> Mapping[int, tuple[str, ...]]:
    """Word by the number of a table what drops those on it, out of all indexes; asked in one question at most."""
    found: dict[int, tuple[str, ...]] = {}
    for index in _free(read, leftovers(indexes)):
        found[index.table_oid] = (*found.get(index.table_oid, ()), drop(index))
    return found


def planned_drops(read: Reader, subject: Name | None) -> tuple[str, ...]:
    """Word what drops those on the tables of a single object, or of the database."""
    return drops(read, leftovers(read_beside(read, subject=subject)))


def before_a_rewrite(session: Session, subject: Name | None) -> Callable[[Step], Failure | None]:
    """Drop the leftovers, and return what fails the table of one that is still there.

    A rewrite builds every index of its table anew, and makes those valid that were not: a leftover would become
    a second index of the same kind, which nobody would ever miss or drop.
    """
    _, remaining = clean_up(session, subject)

    def refuse(step: Step) -> Failure | None:
        left = [index for index in remaining if index.table == step.name]
        if not left:
            return None
        built = any(is_being_built(session.rows, index, [session.pid]) for index in left)
        return _in_the_way([index.name.shown for index in left], built=built)

    return refuse


def _free(read: Reader, left: Sequence[Index]) -> list[Index]:
    built = {index.oid for index in being_built(read, left, [])}
    return [index for index in left if index.oid not in built]


def _in_the_way(names: Sequence[str], *, built: bool) -> Failure:
    remedy = "another session may still be building it" if built else "drop it as its owner"
    return Failure(
        reason="LEFTOVER_INDEX",
        message="A rewrite would make an index valid that a broken-off rebuild has left, and it could not be "
        f"dropped: {remedy} ({listed(names)}).",
        category=FailureCategory.LOCKED if built else FailureCategory.PERMISSION,
        retryable=built,
    )
