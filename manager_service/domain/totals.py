"""What the attempts of a parent job did in all: sums of measures by their names, whatever engine measured them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

LOCK_WAIT, BLOCKING = "lock_wait_seconds", "blocking_seconds"
MAX_WAITERS = 8

_SIZES = (("file_bytes", "wal_bytes"), ("size_bytes",))
_PARTS_OF_A_SECOND = 3
# Nothing is as large or lasts as long; without it a worker that is mad could make a sum infinite.
_MOST = float(1 << 60)


@dataclass(frozen=True, slots=True, kw_only=True)
class LockWaiter:
    """Sessions that were seen waiting for a lock of an operation; ``seconds`` are those of all ``sessions``."""

    application: str = ""
    user: str = ""
    object: str = ""
    lock_mode: str = ""
    seconds: float = 0.0
    sessions: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What was reported of attempts, added up.

    Each sum goes with the number of attempts that told it: what was not measured is not taken for 0. Only attempts
    that reported measures are counted. ``waiters`` are those who waited longest.
    """

    attempts: int = 0
    sized: int = 0
    reclaimed: float = 0.0
    grown: float = 0.0
    waited: int = 0
    lock_wait_seconds: float = 0.0
    blocked: int = 0
    blocking_seconds: float = 0.0
    waiters: tuple[LockWaiter, ...] = ()

    def plus(self, other: "Totals") -> "Totals":
        """Add what further attempts did."""
        if NOTHING in (self, other):
            return other if self == NOTHING else self
        return Totals(
            attempts=self.attempts + other.attempts,
            sized=self.sized + other.sized,
            reclaimed=self.reclaimed + other.reclaimed,
            grown=self.grown + other.grown,
            waited=self.waited + other.waited,
            lock_wait_seconds=_seconds(self.lock_wait_seconds + other.lock_wait_seconds),
            blocked=self.blocked + other.blocked,
            blocking_seconds=_seconds(self.blocking_seconds + other.blocking_seconds),
            waiters=longest((*self.waiters, *other.waiters)),
        )


NOTHING = Totals()


def totals_of(
    before: Mapping[str, float], after: Mapping[str, float], waiters: tuple[LockWaiter, ...] = ()
) -> Totals:
    """Return what one attempt did, by its measures before and after."""
    if not before and not after:
        return NOTHING
    shrunk = _shrunk(before, after)
    return Totals(
        attempts=1,
        sized=int(shrunk is not None),
        reclaimed=max(0.0, shrunk or 0.0),
        grown=max(0.0, -(shrunk or 0.0)),
        waited=int(LOCK_WAIT in after),
        lock_wait_seconds=_seconds(after.get(LOCK_WAIT, 0.0)),
        blocked=int(BLOCKING in after),
        blocking_seconds=_seconds(after.get(BLOCKING, 0.0)),
        waiters=longest(waiters),
    )


def longest(waiters: Iterable[LockWaiter]) -> tuple[LockWaiter, ...]:
    """Return those who waited longest, each once; of how many sessions they were the most is kept."""
    by_name: dict[LockWaiter, LockWaiter] = {}
    for one in waiters:
        name = replace(one, seconds=0.0, sessions=0)
        known = by_name.get(name, name)
        by_name[name] = replace(
            known, seconds=_seconds(known.seconds + one.seconds), sessions=max(known.sessions, one.sessions)
        )
    ordered = sorted(by_name.values(), key=lambda one: (-one.seconds, one.application, one.user, one.object))
    return tuple(ordered[:MAX_WAITERS])


def _shrunk(before: Mapping[str, float], after: Mapping[str, float]) -> float | None:
    """Return by how many bytes something shrank; ``None`` where its size is not known before and after."""
    for size, *beside in _SIZES:
        if size in before and size in after:
            names = (size, *(name for name in beside if name in before and name in after))
            return max(-_MOST, min(sum(before[name] - after[name] for name in names), _MOST))
    return None


def _seconds(value: float) -> float:
    return max(0.0, round(min(value, _MOST), _PARTS_OF_A_SECOND))
