"""The store's clock and its mark of life."""

from typing import Any, Protocol

from sqlalchemy import BigInteger, bindparam, case, insert, select, true, update

from manager_service.domain.fleet import SessionState, Timing
from manager_service.domain.model import SECOND, Instant, Span
from manager_service.domain.ports import Clock
from manager_service.store.statements import Among, Connection, Statement
from manager_service.store.tables import child_jobs, is_open, leases, queue, sessions, store_state

_MARK = Statement(select(store_state.c.mark))
_FIRST_MARK = Statement(insert(store_state))
_SET_MARK = Statement(update(store_state).values(mark=bindparam("now")))
_HOLD_MARK = Statement(select(store_state.c.mark).with_for_update())
_ADVANCE_MARK = Statement(
    update(store_state).where(store_state.c.mark < bindparam("now")).values(mark=bindparam("now"))
)
_l = leases.c
_grace = case((~_l.graced, bindparam("grace", type_=BigInteger)), else_=0)
_SHIFT_LEASES = Statement(
    update(leases).values(
        expire_time=_l.expire_time + bindparam("gap") + _grace,
        accept_time=_l.accept_time + bindparam("gap") + _grace,
        graced=true(),
    )
)
_SHIFT_SESSIONS = Statement(
    update(sessions)
    .where(Among(sessions.c.state, "open"))
    .values(heartbeat_time=sessions.c.heartbeat_time + bindparam("gap"))
)
# Heads that are ready or held have an available time as well, and a resume looks at it.
_SHIFT_HEADS = Statement(
    update(queue)
    .where(queue.c.available_time > bindparam("now"))
    .values(available_time=queue.c.available_time + bindparam("gap"))
)
# What a pending child is said to wait for.
_SHIFT_CHILDREN = Statement(
    update(child_jobs)
    .where(is_open, child_jobs.c.available_time > bindparam("now"))
    .values(available_time=child_jobs.c.available_time + bindparam("gap"))
)

# A living manager writes its mark at least once a heartbeat interval; twice that without one is an outage.
_INTERVALS_UNMARKED = 2
_GRACE_INTERVALS = 2


class Runs(Protocol):
    """A connection, or the transaction on it."""

    def run(self, statement: Statement, **given: Any) -> int:
        """Run a statement and return how many rows it changed."""


class StoreClock:
    """Wall time at the opening of the store plus what the monotonic clock measured since."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset = clock.wall() - clock.monotonic()

    def now(self) -> Instant:
        """Return the store's time."""
        return self._offset + self._clock.monotonic()


class MarkOfLife:
    """The moment when a manager last showed that it lives; a gap after it is an outage.

    Every transaction looks for a gap before it does anything, so that nothing can expire by an outage: whether the
    manager was down, stopped, or its clock stepped meanwhile. A gap moves what is live by its length plus two
    heartbeat intervals. The two intervals are given once per renewal of a lease: a manager that dies again and
    again cannot keep a dead worker's lease for ever.
    """

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._mark: Instant | None = None
        self._written: Instant | None = None

    def open(self, connection: Connection, now: Instant) -> None:
        """Read the mark of the manager before and make up for the time since."""
        rows = connection.rows(_MARK)
        if rows:
            make_up(connection, self._timing, now - rows[0].mark, now)
            self.write(connection, now)
        else:
            connection.run(_FIRST_MARK, id=1, mark=now)
            self._written = now
        self.committed()

    def check(self, connection: Connection, now: Instant) -> None:
        """Make up for a gap, if there is one."""
        if self._mark is not None and now - self._mark > longest_silence(self._timing):
            make_up(connection, self._timing, now - self._mark, now)
            self.write(connection, now)

    def write(self, connection: Runs, now: Instant) -> None:
        """Write the mark."""
        connection.run(_SET_MARK, now=now)
        self._written = now

    def refresh(self, connection: Connection, now: Instant) -> None:
        """Write the mark along with something else, where that makes it much younger: a crash then costs less."""
        if self._mark is not None and now - self._mark >= SECOND:
            self.write(connection, now)

    def committed(self) -> None:
        """Take over what the transaction wrote."""
        if self._written is not None:
            self._mark, self._written = self._written, None

    def rolled_back(self) -> None:
        """Forget what the transaction wrote."""
        self._written = None


def longest_silence(timing: Timing) -> Span:
    """Return how old a mark may be; an older one tells of an outage."""
    return _INTERVALS_UNMARKED * timing.heartbeat_interval


def make_up(connection: Connection, timing: Timing, gap: Span, now: Instant) -> None:
    """Move what is live by the length of an outage, and by a grace for workers to come back."""
    connection.run(_SHIFT_LEASES, gap=gap, grace=_GRACE_INTERVALS * timing.heartbeat_interval)
    connection.run(_SHIFT_SESSIONS, gap=gap, open=[SessionState.READY.value, SessionState.DRAINING.value])
    if gap < 0:
        # The clock went back: what waits would wait that much longer.
        connection.run(_SHIFT_HEADS, gap=gap, now=now)
        connection.run(_SHIFT_CHILDREN, gap=gap, now=now)


class SharedMark:
    """The moment when any of several managers last showed that it lives, read anew by each transaction."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing

    def make_up(self, connection: Connection, now: Instant) -> None:
        """Make up for a gap, if there still is one, for all managers at once."""
        held = connection.rows(_HOLD_MARK)[0].mark
        if self.is_gap(now, held):
            make_up(connection, self._timing, now - held, now)
            connection.run(_SET_MARK, now=now)

    def write(self, connection: Connection, now: Instant) -> None:
        """Write the mark, unless another manager wrote a later one."""
        connection.post(_ADVANCE_MARK, now=now)

    def is_late(self, now: Instant, mark: Instant) -> bool:
        """Tell whether whoever writes the mark is held up, so that others who live had better write it too."""
        return now - mark > self._timing.heartbeat_interval

    def is_gap(self, now: Instant, mark: Instant) -> bool:
        """Tell whether nobody lived for a while, or the clock went back, as that of another server may."""
        return abs(now - mark) > longest_silence(self._timing)
