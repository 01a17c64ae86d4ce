"""Whether calls and answers fit some order in which one child job went through its life, one call at a time.

Wing and Gong's search: a call may come next if no call that is still to come was answered before it was made. A
call whose answer was lost may have been carried out or not, at any time after it was made.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum, auto
from typing import TypeAlias, assert_never


class Answer(StrEnum):
    """What a report is answered with."""

    RECORDED = auto()
    ALREADY_RECORDED = auto()
    STALE = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A lease is granted to a poll of a session, or is told to it once more."""

    lease_id: str
    attempt: int
    session_id: str
    poll: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A session reports how an attempt ended; the child waits for another one unless that is ``final``."""

    lease_id: str
    attempt: int
    session_id: str
    report_id: str
    outcome: str
    final: bool

    @property
    def record(self) -> "Record":
        return self.attempt, self.lease_id, self.report_id, self.outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A lease runs out and is taken back."""

    lease_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """What is kept of the child when all is over: it has ended, and these reports are recorded."""

    records: frozenset["Record"]


Record: TypeAlias = tuple[int, str, str, str]
Operation: TypeAlias = Grant | Report | Loss | Rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """An operation between its call and its answer; without an answer it may have been carried out or not."""

    begin: float
    operation: Operation
    end: float = math.inf
    answer: Answer | None = None

    @property
    def certain(self) -> bool:
        return self.end < math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A child job: pending unless it has a lease or has ended."""

    attempts: int = 0
    lease: Grant | None = None
    ended: bool = False
    records: frozenset[Record] = frozenset()

    def after(self, operation: Operation) -> tuple["Child", Answer | None] | None:
        """Return the child after an operation, and the answer to it; nothing if it cannot be carried out now."""
        match operation:
            case Grant():
                after = self._granted(operation)
                return None if after is None else (after, None)
            case Report():
                return self._reported(operation)
            case Loss():
                lost = self.lease is not None and self.lease.lease_id == operation.lease_id
                return (replace(self, lease=None), None) if lost else None
            case Rest():
                return (self, None) if self.ended and self.records == operation.records else None
            case _:
                assert_never(operation)

    def _granted(self, grant: Grant) -> "Child | None":
        if self.lease == grant:
            return self
        if self.ended or self.lease is not None or grant.attempt != self.attempts + 1:
            return None
        return replace(self, attempts=grant.attempt, lease=grant)

    def _reported(self, report: Report) -> tuple["Child", Answer]:
        held = self.lease
        if held is not None and (held.lease_id, held.attempt, held.session_id) == (
            report.lease_id,
            report.attempt,
            report.session_id,
        ):
            after = replace(self, lease=None, ended=report.final, records=self.records | {report.record})
            return after, Answer.RECORDED
        return self, Answer.ALREADY_RECORDED if report.record in self.records else Answer.STALE


@dataclass(slots=True)
class _Search:
    calls: Sequence[Call]
    refuted: set[tuple[int, Child]] = field(default_factory=set)

    def fits(self, done: int, child: Child) -> bool:
        """Tell whether the calls that are not done, a bit for each, can follow on what the child is now."""
        done = self._with_idle(done, child)
        left = self._left(done)
        if not any(self.calls[number].certain for number in left):
            return True
        if (done, child) in self.refuted:
            return False
        if any(self.fits(done | 1 << number, after) for number, after in self._next(left, child)):
            return True
        self.refuted.add((done, child))
        return False

    def _left(self, done: int) -> list[int]:
        return [number for number in range(len(self.calls)) if not done >> number & 1]

    def _with_idle(self, done: int, child: Child) -> int:
        """Do every call that may come next and changes nothing: it may come first in whatever order there is."""
        while idle := [number for number, after in self._next(self._left(done), child) if after == child]:
            for number in idle:
                done |= 1 << number
        return done

    def _next(self, left: Sequence[int], child: Child) -> Iterator[tuple[int, Child]]:
        first_answer = min((self.calls[number].end for number in left), default=math.inf)
        for number in left:
            call = self.calls[number]
            if call.begin > first_answer:
                continue
            after, answer = child.after(call.operation) or (None, None)
            # One without an answer is carried out where it makes a difference, or never.
            if after is not None and (call.answer == answer if call.certain else after != child):
                yield number, after


def _distinct(calls: Sequence[Call]) -> Iterator[Call]:
    """Leave out repeats without an answer: no operation changes a child twice, so the first of them will do."""
    repeated: set[Operation] = set()
    for call in sorted(calls, key=lambda call: call.begin):
        if call.certain:
            yield call
        elif call.operation not in repeated:
            repeated.add(call.operation)
            yield call


def is_linearizable(calls: Sequence[Call]) -> bool:
    """Tell whether the calls that concern one child job fit an order that gives their answers."""
    return _Search(list(_distinct(calls))).fits(0, Child())
