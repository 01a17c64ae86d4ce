from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import psycopg

from worker_service.domain.errors import OperationCancelledError
from worker_service.domain.outcome import Failure, FailureCategory
from worker_service.operations.postgresql.failures import (
    ENDING,
    failure_of,
    is_gone,
    needs_what_is_missing,
    not_free,
    not_permitted,
)
from worker_service.operations.postgresql.names import Name
from worker_service.operations.postgresql.progress import Watch
from worker_service.operations.postgresql.session import Notice, Row, Session

_LOCK_NOT_AVAILABLE = "55P03"
_UNDEFINED_TABLE = "42P01"
_THERE = """
SELECT 1 FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s
"""
# The functions of the server that warn of a table that they pass over; their names are the same in every language.
_NO_RIGHTS = frozenset(
    {
        "vacuum_is_relation_owner",
        "vacuum_is_permitted_for_relation",
        "cluster_is_permitted_for_relation",
        "repack_is_permitted_for_relation",
    }
)
_PASSES_OVER = frozenset({"vacuum_open_relation", "vacuum_rel", "analyze_rel"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One statement of an operation, on the object of that name; ``table`` is the table of an index."""

    name: Name
    statement: str
    table: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What became of one statement for each of many objects.

    ``ran`` are those whose statement ended without an error or a warning, which is not to say that it had an
    effect. ``end`` is the failure that ended the sweep before its last object.
    """

    ran: frozenset[Name] = frozenset()
    failures: Mapping[Name, Failure] = field(default_factory=dict)
    gone: frozenset[Name] = frozenset()
    stopped: bool = False
    end: Failure | None = None


def sweep(
    session: Session,
    steps: Sequence[Step],
    watch: Watch,
    *,
    before_each: Callable[[Step], Failure | None] = lambda _: None,
    again: Callable[[Step], bool] = lambda _: True,
    hear: Callable[[Name, Sequence[Notice]], None] = lambda *_: None,
    read: Callable[[Step, Sequence[Row]], Failure | None] = lambda *_: None,
) -> Swept:
    """Run the steps one by one; warn of one that fails and go on. Those that met a lock are tried once more.

    ``before_each`` may tell a failure in place of the statement, ``again`` that an object is done in spite of its
    lock; ``hear`` takes what the server said, and ``read`` may tell a failure from the rows that were answered. A
    stop ends it quietly: what was done is to be read from the catalogues then.
    """

    def runner(step: Step) -> Failure | None:
        if failure := before_each(step):
            return failure
        notices = session.run(step.statement)
        hear(step.name, notices)
        return warned(notices) or read(step, session.answer)

    result = _pass(session, steps, watch, Swept(), runner)
    if result.stopped or result.end or len(steps) == 1:
        return result
    locked = [step for step in steps if _is_locked(result.failures.get(step.name)) and again(step)]
    if locked:
        left = {step.name for step in locked}
        kept = {name: failure for name, failure in result.failures.items() if name not in left}
        session.log("info", f"Trying those again that were locked: {len(locked)}.")
        result = _pass(session, locked, watch, replace(result, failures=kept), runner)
    return result


def _pass(
    session: Session, steps: Iterable[Step], watch: Watch, result: Swept, one: Callable[[Step], Failure | None]
) -> Swept:
    for step in steps:
        try:
            session.checkpoint()
            with watch.step(step.name.shown):
                failure = one(step)
        except OperationCancelledError:
            return replace(result, stopped=True)
        except psycopg.Error as error:
            failure = failure_of(error)
        result = _after(result, session, step, failure)
        if result.end:
            return result
    return result


def warned(notices: Iterable[Notice]) -> Failure | None:
    """Tell whether the server only warned that it did not do what it was asked for."""
    for notice in notices:
        if notice.severity == "WARNING":
            if notice.sqlstate == _LOCK_NOT_AVAILABLE:
                return not_free(notice.text)
            if notice.function in _NO_RIGHTS:
                return not_permitted(notice.text)
            if notice.function in _PASSES_OVER:
                reason = "GONE" if notice.sqlstate == _UNDEFINED_TABLE else "PASSED_OVER"
                text = f"The server passed it over ({notice.text})."
                return Failure(reason=reason, message=text, category=FailureCategory.SCHEMA, retryable=False)
    return None


def _after(result: Swept, session: Session, step: Step, failure: Failure | None) -> Swept:
    if failure is None:
        return replace(result, ran=result.ran | {step.name})
    if is_gone(failure):
        if not _is_there(session, step.name):
            session.log("info", f"{step.name.shown}: it is not there any more.")
            return replace(result, gone=result.gone | {step.name})
        failure = needs_what_is_missing(failure)
    failures = {**result.failures, step.name: failure}
    if failure.reason in ENDING:
        session.log("error", f"{step.name.shown}: {failure.message}")
        return replace(result, failures=failures, end=failure)
    session.log("warning", f"{step.name.shown}: {failure.message} Going on with the next.")
    return replace(result, failures=failures)


def _is_there(session: Session, name: Name) -> bool:
    return bool(session.rows(_THERE, name.schema, name.name))


def _is_locked(failure: Failure | None) -> bool:
    return failure is not None and failure.category is FailureCategory.LOCKED
