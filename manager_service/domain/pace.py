"""How long a running operation has left, as far as that can be told. Pure: the time comes in as an argument."""

from dataclasses import dataclass, replace
from typing import Self

from manager_service.domain.model import SECOND, Instant, Progress, Span

LEAST: Span = 2 * SECOND
"""How long a phase has to be followed before its speed means anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast a phase of an attempt goes: what was told of it first and what last.

    That is all that is kept, however often it is told. Times are of one clock that does not step.
    """

    attempt: int
    first: Progress
    first_time: Span
    last: Progress
    last_time: Span

    @classmethod
    def begun(cls, attempt: int, progress: Progress, now: Span) -> Self:
        """Return the pace of what is told for the first time."""
        return cls(attempt=attempt, first=progress, first_time=now, last=progress, last_time=now)

    def told(self, attempt: int, progress: Progress, now: Span) -> Self:
        """Return the pace after another telling; another phase, or one begun again, has a pace of its own."""
        if attempt != self.attempt or not _goes_on(self.last, progress):
            return self.begun(attempt, progress, now)
        return replace(self, last=progress, last_time=now)

    def left(self, now: Span) -> Span | None:
        """Return how long the phase will take if it goes on as fast, always more than 0.

        That is ``None`` while there is no speed, where the phase has no end, and when it should be over by now.
        """
        first, last, total = self.first.done, self.last.done, self.last.total
        if first is None or last is None or total is None or not first < last < total:
            return None
        followed = self.last_time - self.first_time
        if followed < LEAST:
            return None
        left = (total - last) * followed // (last - first) - (now - self.last_time)
        return left if left > 0 else None


def _goes_on(before: Progress, after: Progress) -> bool:
    """Tell whether a progress is of the same phase as one that was told before it."""
    if (before.phase, before.unit) != (after.phase, after.unit):
        return False
    if before.done is None or after.done is None:
        return before.done is after.done
    return before.done <= after.done


def expected_left(*, expected: Span | None, begun: Instant | None, now: Instant) -> Span | None:
    """Return how long an attempt will take if it takes as long as such ones did, always more than 0.

    That is ``None`` where it was not learned, before it began, and of one that takes longer.
    """
    if expected is None or begun is None:
        return None
    left = expected - max(0, now - begun)
    return left if left > 0 else None
