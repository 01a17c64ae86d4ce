import threading
from collections import deque
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
from worker_service.operations.postgresql.lanes import beside_each_other, interrupt_others, lanes_of
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

    @property
    def is_over(self) -> bool:
        """Whether nothing comes after it."""
        return self.stopped or self.end is not None

    def then(self, other: "Swept") -> "Swept":
        """Return what became of the objects of two sweeps, of which the other was the later."""
        return Swept(
            ran=self.ran | other.ran,
            failures={**self.failures, **other.failures},
            gone=self.gone | other.gone,
            stopped=other.stopped,
            end=other.end,
        )


def sweep(
    session: Session,
    steps: Sequence[Step],
    watch: Watch,
    *,
    before_each: Callable[[Session], Callable[[Step], Failure | None]] = lambda _: lambda _: None,
    again: Callable[[Step], bool] = lambda _: True,
    hear: Callable[[Name, Sequence[Notice]], None] = lambda *_: None,
    read: Callable[[Step, Sequence[Row]], Failure | None] = lambda *_: None,
    jobs: int | None = None,
) -> Swept:
    """Run the steps one by one; warn of one that fails and go on. Those that met a lock are tried once more.

    Where the options ask for several ``jobs``, and the caller not for fewer, each has a session, and steps on one
    table go to the same.
    ``before_each`` makes for a session what may tell a failure in place of the statement, ``again`` tells that an
    object is done in spite of its lock; ``hear`` takes what the server said, and ``read`` may tell a failure from
    the rows that were answered, neither of them two at once. A stop ends it quietly: what was done is to be read
    from the catalogues then.
    """
    first = _Pass(steps, watch, Swept(), hear, read)
    with lanes_of(session, min(first.shares, jobs or first.shares)) as lanes:
        ready = {id(lane): before_each(lane) for lane in lanes}

        def work(lane: Session) -> None:
            first.work(lane, ready[id(lane)])
            if first.result.end:
                interrupt_others(lanes, lane)

        beside_each_other(lanes, work)
    result = first.result
    if result.stopped or result.end or len(steps) == 1:
        return result
    locked = [step for step in steps if _is_locked(result.failures.get(step.name)) and again(step)]
    if not locked:
        return result
    left = {step.name for step in locked}
    kept = {name: failure for name, failure in result.failures.items() if name not in left}
    session.log("info", f"Trying those again that were locked: {len(locked)}.")
    second = _Pass(locked, watch, replace(result, failures=kept), hear, read)
    second.work(session, before_each(session))
    return second.result


class _Pass:
    """Steps that are shared out among lanes, and what became of them."""

    def __init__(
        self,
        steps: Iterable[Step],
        watch: Watch,
        result: Swept,
        hear: Callable[[Name, Sequence[Notice]], None],
        read: Callable[[Step, Sequence[Row]], Failure | None],
    ) -> None:
        tables: dict[int | Name, list[Step]] = {}
        for step in steps:
            tables.setdefault(step.table or step.name, []).append(step)
        self.result = result
        self.shares = len(tables)
        self._left = deque(tables.values())
        self._watch = watch
        self._hear = hear
        self._read = read
        self._raised = False
        self._guard = threading.Lock()

    def work(self, lane: Session, before: Callable[[Step], Failure | None]) -> None:
        """Take steps until none is left, or one has ended the pass, or has raised."""
        try:
            while (steps := self._take()) is not None:
                for step in steps:
                    if not self._is_over:
                        self._one(lane, step, before)
        except BaseException:
            self._raised = True
            raise

    @property
    def _is_over(self) -> bool:
        return self._raised or self.result.stopped or self.result.end is not None

    def _take(self) -> Sequence[Step] | None:
        with self._guard:
            return self._left.popleft() if self._left and not self._is_over else None

    def _one(self, lane: Session, step: Step, before: Callable[[Step], Failure | None]) -> None:
        try:
            lane.checkpoint()
            with self._watch.step(step.name.shown, lane):
                failure = before(step) or self._done(step, lane.run(step.statement), lane)
        except OperationCancelledError:
            with self._guard:
                self.result = replace(self.result, stopped=True)
            return
        except psycopg.Error as error:
            failure = failure_of(error)
        gone = failure is not None and is_gone(failure) and not _is_there(lane, step.name)
        with self._guard:
            self.result = _after(self.result, lane, step, failure, gone=gone)

    def _done(self, step: Step, notices: Sequence[Notice], lane: Session) -> Failure | None:
        with self._guard:
            self._hear(step.name, notices)
            return warned(notices) or self._read(step, lane.answer)


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


def _after(result: Swept, session: Session, step: Step, failure: Failure | None, *, gone: bool) -> Swept:
    if failure is None:
        return replace(result, ran=result.ran | {step.name})
    if gone:
        session.log("info", f"{step.name.shown}: it is not there any more.")
        return replace(result, gone=result.gone | {step.name})
    if is_gone(failure):
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
