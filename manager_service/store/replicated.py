"""The transactions of a store on PostgreSQL that many managers share; the clock is the database's."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import psycopg
from sqlalchemy import BigInteger, cast, func, select

from manager_service.domain.errors import OverloadedError, StoreUnavailableError
from manager_service.domain.fleet import Timing
from manager_service.domain.model import Instant
from manager_service.domain.ports import Hints, IdSource, Listener
from manager_service.store.clock import SharedMark
from manager_service.store.errors import ConflictError, HeldUpError
from manager_service.store.notices import Notices
from manager_service.store.postgresql import PostgresConnection
from manager_service.store.postgresql_dialect import postgresql_dialect
from manager_service.store.postgresql_door import Door, administered, described, open_connection, parse
from manager_service.store.postgresql_exclusion import PostgresExclusion
from manager_service.store.schema import check
from manager_service.store.schema import migrate as migrate_schema
from manager_service.store.statements import Connection, Statement
from manager_service.store.store import Query, SqlJobStore
from manager_service.store.tables import store_state
from manager_service.store.unit_of_work import UnitOfWork
from manager_service.store.writer import MOST_QUEUED, Entry

T = TypeVar("T")
Connect = Callable[[], PostgresConnection]
# What waits for the time and the mark of life.
Moment = Callable[[], tuple[Instant, Instant]]


# So many commands share a transaction at most: what one of them holds, the others hold as long.
_MOST_TOGETHER = 100
# How often a start is tried that other managers are in the way of: longer than one that was stopped can be.
_OPENINGS = 4
# One transaction waits for the disk while another is worked on.
_LEASING = 2
_READERS = 4
_RETRY_AFTER = 1.0
_MICROS = 1_000_000
_MOMENT = Statement(
    select(
        cast(func.extract("epoch", func.clock_timestamp()) * _MICROS, BigInteger).label("now"), store_state.c.mark
    )
)


class DatabaseClock:
    """The database's clock, the one that all managers have."""

    def ask(self, connection: Connection) -> Moment:
        """Ask for the time, and for the mark of life that was written last."""
        asked = connection.ask(_MOMENT)

        def moment() -> tuple[Instant, Instant]:
            [row] = asked()
            return row.now, row.mark

        return moment


class PostgresTransactions:
    """Begins and ends the units of work of one connection, in a thread of its own.

    A thread, because a transaction may have to wait for another manager's, and calls go on meanwhile.
    """

    def __init__(
        self, connection: PostgresConnection, clock: DatabaseClock, *, ids: IdSource, timing: Timing
    ) -> None:
        self.connection = connection
        self._exclusion = PostgresExclusion(connection)
        self._clock = clock
        self._ids = ids
        self._timing = timing
        self._mark = SharedMark(timing)
        # What the database's clock showed last, and what this process's did then.
        self._last: tuple[Instant, float] = 0, 0.0
        self._late = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")

    def begin(self) -> UnitOfWork:
        """Begin a transaction; what an outage did to expire times is made good before anything is committed."""
        self.connection.begin()
        self._exclusion.join()
        asked = self._clock.ask(self.connection)
        then, at = self._last
        about = then + round((time.monotonic() - at) * _MICROS)
        return UnitOfWork(
            self.connection,
            self._exclusion,
            moment=lambda: self._checked(asked),
            about=about,
            ids=self._ids,
            timing=self._timing,
        )

    def _checked(self, asked: Moment) -> Instant:
        """Return the time; where it shows an outage, make up for that, and have the transaction run again.

        Raises:
            ConflictError: what the transaction read was from before.
        """
        now, mark = asked()
        if self._mark.is_gap(now, mark):
            self.connection.rollback()
            self.connection.begin()
            # It moves every lease and session, whatever row the transactions of others would lock next.
            self._exclusion.stand_alone()
            self._mark.make_up(self.connection, self._clock.ask(self.connection)()[0])
            self.connection.commit()
            raise ConflictError("leases were given the time back that an outage took from them")
        self._late = self._mark.is_late(now, mark)
        self._last = now, time.monotonic()
        return now

    def changes(self) -> int:
        """Return how many rows were changed so far."""
        return self.connection.changes()

    def commit(self, tx: UnitOfWork) -> Hints:
        """Write what the unit of work owes, commit, and return what listeners are to look at."""
        tx.flush()
        hints = tx.hints()
        if self._late or tx.alive:
            # Last of all: everybody writes it, so nobody holds it for longer than a commit takes.
            self._mark.write(self.connection, tx.now)
        self.connection.commit()
        return hints

    def rollback(self) -> None:
        """Undo the transaction, if one is open."""
        self.connection.rollback()

    async def drive(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a transaction in the thread; when the caller is cancelled, the work is as well."""
        cancelled = threading.Event()
        done = asyncio.get_running_loop().run_in_executor(self._thread, _exhaust, work, cancelled)
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            cancelled.set()
            await asyncio.wait([done])
            raise

    def choose(self, queue: deque[Entry]) -> list[Entry]:
        """Take commands that wait, by what they lock first, so that managers lock in the same order."""
        entries = [queue.popleft() for _ in range(min(len(queue), _MOST_TOGETHER))]
        # What holds leases and heads without having to wait for them comes last.
        entries.sort(key=lambda entry: (not entry.key, entry.key))
        return entries

    def close(self) -> None:
        """Close the connection."""
        self._thread.shutdown()
        self.connection.close()


def _exhaust(work: Coroutine[Any, Any, T], cancelled: threading.Event) -> T:
    """Run a coroutine that only ever lets others go first, where there are no others."""
    while True:
        try:
            if cancelled.is_set():
                work.throw(asyncio.CancelledError())
            work.send(None)
        except StopIteration as end:
            value: T = end.value
            return value


class Readers:
    """Threads that read, each on a connection of its own."""

    def __init__(self, connect: Connect, clock: DatabaseClock) -> None:
        self._connect = connect
        self._clock = clock
        self._threads = ThreadPoolExecutor(_READERS, thread_name_prefix="store-reader")
        self._local = threading.local()
        self._opened: list[PostgresConnection] = []
        self._waiting = 0

    async def read(self, query: Query[T]) -> T:
        """Run a query on a snapshot of what was committed last; raise ``OverloadedError`` if too many wait."""
        if self._waiting >= MOST_QUEUED:
            raise OverloadedError("the queue of readers of the job store", _RETRY_AFTER)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, query)
        finally:
            self._waiting -= 1

    def _read(self, query: Query[T]) -> T:
        connection: PostgresConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connect()
            self._opened.append(connection)
        with connection.snapshot():
            return query(connection, lambda: self._clock.ask(connection)()[0])

    def close(self) -> None:
        """Close the connections."""
        self._threads.shutdown()
        for connection in self._opened:
            connection.close()


class PostgresBackend:
    """Connections for workers, one for clients and upkeep, and some that read."""

    def __init__(
        self,
        connect: Connect,
        clock: DatabaseClock,
        *,
        ids: IdSource,
        timing: Timing,
        notices: Callable[[], psycopg.Connection[Any]] | None,
    ) -> None:
        self._connect_notices = notices
        self._notices: Notices | None = None
        self.leasing, self.steering = (
            tuple(PostgresTransactions(connect(), clock, ids=ids, timing=timing) for _ in range(number))
            for number in (_LEASING, 1)
        )
        self._readers = Readers(connect, clock)
        self._timing = timing

    def open(self) -> None:
        """Make up for a time in which no manager ran.

        Raises:
            StoreUnavailableError: the database cannot be reached, or another manager is in the way.
        """
        for attempt in range(1, _OPENINGS + 1):
            try:
                self._make_up()
            except (ConflictError, HeldUpError) as error:
                self.leasing[0].rollback()
                if attempt == _OPENINGS:
                    raise StoreUnavailableError(f"another manager is in the way: {error}") from error
            else:
                return

    def _make_up(self) -> None:
        tx = self.leasing[0].begin()
        self.mark_alive(tx)
        self.leasing[0].commit(tx)

    def mark_alive(self, tx: UnitOfWork) -> None:
        """Have the mark of life written with the transaction."""
        tx.alive = True

    async def read(self, query: Query[T]) -> T:
        """Run a query on a snapshot of what was committed last."""
        return await self._readers.read(query)

    def listen(self, listener: Listener) -> None:
        """Begin to hear of what other managers committed, unless there is no connection to stay on."""
        if self._connect_notices is not None:
            self._notices = Notices(self._connect_notices, listener)
            self._notices.listen()

    def tell(self, hints: Hints) -> None:
        """Tell other managers what this one committed."""
        if self._notices is not None:
            self._notices.tell(hints)

    def close(self) -> None:
        """Close the connections."""
        if self._notices is not None:
            self._notices.close()
        for transactions in (*self.leasing, *self.steering):
            transactions.close()
        self._readers.close()


def open_replicated(
    url: str, *, ids: IdSource, timing: Timing, pooled: bool = False, clock: DatabaseClock | None = None
) -> SqlJobStore:
    """Open the job store in a PostgreSQL database.

    Args:
        url: the database, as PostgreSQL's own programs take it.
        ids: where ids and chance come from.
        timing: the spans that leases live by; the same for all managers of the store.
        pooled: whether a connection pooler stands before the database, which hands each transaction to another
            connection: then nothing is prepared and no hints are heard, and whoever waits looks again and again.
        clock: tells the time in place of the database's clock.

    Raises:
        InvalidStoreError: the URL is wrong, or the database has not this release's schema.
        StoreUnavailableError: the database cannot be reached.
    """
    conninfo, dialect = parse(url), postgresql_dialect()
    with administered(conninfo) as engine:
        check(engine, described(conninfo))
    door = Door(conninfo, pooled=pooled)
    backend = PostgresBackend(
        lambda: PostgresConnection(door, dialect),
        clock or DatabaseClock(),
        ids=ids,
        timing=timing,
        notices=None if pooled else lambda: open_connection(conninfo),
    )
    try:
        backend.open()
    except BaseException:
        backend.close()
        raise
    return SqlJobStore(backend, timing=timing)


def migrate(url: str) -> str:
    """Bring a PostgreSQL database to this release's schema, and return the schema that it had before.

    Raises:
        InvalidStoreError: the URL is wrong, or the database is not to be touched.
        StoreUnavailableError: the database cannot be reached.
    """
    conninfo = parse(url)
    with administered(conninfo) as engine:
        return migrate_schema(engine, described(conninfo))
