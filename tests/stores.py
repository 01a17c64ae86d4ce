"""Job stores of each kind whose time is the tests' own."""

from collections.abc import Callable

from manager_service.domain.fleet import Timing
from manager_service.domain.model import Instant
from manager_service.domain.ports import Clock, IdSource, JobStore
from manager_service.store import open_store
from manager_service.store.clock import StoreClock
from manager_service.store.replicated import DatabaseClock, migrate, open_replicated
from manager_service.store.statements import Connection
from tests.postgres import PostgresServer


class _ClockOfTests(DatabaseClock):
    """Stands in for the database's clock, as a manager's own clock does on SQLite."""

    def __init__(self, clock: Clock) -> None:
        self._clock = StoreClock(clock)

    def ask(self, connection: Connection) -> Callable[[], tuple[Instant, Instant]]:
        asked = super().ask(connection)
        return lambda: (self._clock.now(), asked()[1])


def open_any_store(url: str, *, clock: Clock, ids: IdSource, timing: Timing) -> JobStore:
    """Open the job store that a URL names; its clock is the one that tests move."""
    if url.startswith("postgresql:"):
        return open_replicated(url, ids=ids, timing=timing, clock=_ClockOfTests(clock))
    return open_store(url, clock=clock, ids=ids, timing=timing, synchronous="normal")


class PostgresStores:
    """Makes empty job stores in a server, each a copy of one that was migrated once."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self._template = server.create_database()
        migrate(self._template)

    def new_url(self) -> str:
        """Make a job store and return its URL."""
        return self.server.create_database(self._template)

    def drop(self, url: str) -> None:
        """Remove a job store."""
        self.server.drop_database(url)
