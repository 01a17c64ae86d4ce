"""The store's clock and its mark of life."""

from sqlalchemy import bindparam, case, insert, literal, select, update

from manager_service.domain.fleet import SessionState, Timing
from manager_service.domain.model import SECOND, Instant, Span
from manager_service.domain.ports import Clock
from manager_service.store.statements import Among, Connection, Statement
from manager_service.store.tables import child_jobs, is_open, leases, queue, sessions, store_state

_MARK = Statement(select(store_state.c.mark))
_FIRST_MARK = Statement(insert(store_state))
_SET_MARK = Statement(update(store_state).values(mark=bindparam("now")))
_l = leases.c
_grace = case((_l.graced == literal(0), bindparam("grace")), else_=0)
_SHIFT_LEASES = Statement(
    update(leases).values(
        expire_time=_l.expire_time + bindparam("gap") + _grace,
        accept_time=_l.accept_time + bindparam("gap") + _grace,
        graced=literal(1),
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
            self._make_up(connection, now - rows[0].mark, now)
        else:
            connection.run(_FIRST_MARK, id=1, mark=now)
            self._written = now
        self.committed()

    def check(self, connection: Connection, now: Instant) -> None:
        """Make up for a gap, if there is one."""
        if self._mark is not None and now - self._mark > _INTERVALS_UNMARKED * self._timing.heartbeat_interval:
            self._make_up(connection, now - self._mark, now)

    def write(self, connection: Connection, now: Instant) -> None:
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

    def _make_up(self, connection: Connection, gap: Span, now: Instant) -> None:
        grace = _GRACE_INTERVALS * self._timing.heartbeat_interval
        connection.run(_SHIFT_LEASES, gap=gap, grace=grace)
        connection.run(_SHIFT_SESSIONS, gap=gap, open=[SessionState.READY.value, SessionState.DRAINING.value])
        if gap < 0:
            # The clock went back: what waits would wait that much longer.
            connection.run(_SHIFT_HEADS, gap=gap, now=now)
            connection.run(_SHIFT_CHILDREN, gap=gap, now=now)
        self.write(connection, now)
