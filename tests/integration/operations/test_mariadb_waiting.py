"""How long an operation waited for others in the server, and who waited for it, by whatever the server tells."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pymysql
import pytest

from tests.integration.operations.doubles import RecordingControl
from tests.integration.operations.mariadb_databases import Database, logged
from tests.lodgings import HOST, PATIENCE, wait_until
from tests.mariadb import ADMIN, PASSWORD, MariadbServer
from worker_service.domain.outcome import Outcome, Result
from worker_service.operations.mariadb import watching
from worker_service.operations.mariadb.waiting import INTERVAL, Waiters

SECRET = "hunter2"
BOOKS = {"performance-schema": "ON", "performance-schema-instrument": "wait/lock/metadata/sql/mdl=ON"}
WAITING = """
SELECT COUNT(*) FROM information_schema.PROCESSLIST
WHERE STATE = 'Waiting for table metadata lock' AND INFO LIKE %s
"""


@pytest.fixture(autouse=True)
def _quick_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "INTERVAL", 0.05)


@pytest.fixture(scope="module")
def bookkeeper() -> Iterator[MariadbServer]:
    """Lend a server that keeps books of metadata locks."""
    with MariadbServer(BOOKS) as server:
        yield server


@pytest.fixture
def books(bookkeeper: MariadbServer) -> Database:
    return Database(server=bookkeeper, name=bookkeeper.create_database())


def waits(database: Database, words: str) -> bool:
    with database.server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(WAITING, (f"%{words}%",))
        [(number,)] = cursor.fetchall()
        return bool(number)


def read_as(database: Database, application: str, sql: str) -> None:
    port, name = database.server.port, database.name
    with pymysql.connect(
        host=HOST, port=port, database=name, user=ADMIN, password=PASSWORD, program_name=application
    ) as connection:
        connection.query(sql)


def kept_waiting(database: Database, url: str = "") -> tuple[Result, RecordingControl]:
    """Rebuild a table that somebody has read, while somebody else wants to read it and stands behind it."""
    control = RecordingControl()
    with ThreadPoolExecutor(2) as threads:
        with database.reader_of("item"):
            ended = threads.submit(database.maintain, "vacuum", control, url=url, table="item", lock_timeout_s=20)
            wait_until(lambda: waits(database, "OPTIMIZE"), "it does not wait")
            reading = threads.submit(
                read_as, database, "billing", f"SELECT COUNT(*) FROM item WHERE '{SECRET}' <> ''"
            )
            wait_until(lambda: waits(database, SECRET), "nobody waits for it")
            # Looks tell of the wait each time; the last of these has seen both.
            looks = len(control.progresses)
            wait_until(lambda: len(control.progresses) > looks + 2, "nobody looks")
        reading.result(PATIENCE)
        return ended.result(PATIENCE), control


class TestLockWaits:
    def test_the_servers_books_tell_who_waits(self, books: Database) -> None:
        books.table("item", rows=10)

        result, control = kept_waiting(books)

        [waiter] = result.waiters
        assert result.outcome is Outcome.COMPLETED
        assert result.after["lock_wait_seconds"] > 0
        assert (result.after["blocked_sessions"], result.after["blocking_seconds"]) == (1, waiter.seconds)
        assert (waiter.user, waiter.object, waiter.lock_mode) == (ADMIN, f"{books.name}.item", "SHARED_READ")
        assert waiter.application == "billing"
        assert "kept others waiting: 1 session," in logged(control)
        assert SECRET not in logged(control) + repr(result)

    @pytest.mark.parametrize("some", [[], ["SELECT ON performance_schema.setup_instruments"]])
    def test_where_the_role_may_not_read_them_the_list_of_processes_does(
        self, books: Database, some: list[str]
    ) -> None:
        books.table("item", rows=10)

        result, control = kept_waiting(books, books.role("SELECT, INSERT", "PROCESS ON *.*", *some))

        [waiter] = result.waiters
        assert (waiter.user, waiter.object, waiter.lock_mode) == (ADMIN, f"{books.name}.item", "")
        assert result.after["blocking_seconds"] == waiter.seconds > 0
        assert SECRET not in logged(control) + repr(result)

    def test_without_either_who_waits_is_not_known_and_not_0(self, books: Database) -> None:
        books.table("item", rows=10)

        result, control = kept_waiting(books, books.role("SELECT, INSERT"))

        assert result.outcome is Outcome.COMPLETED
        assert result.after["lock_wait_seconds"] > 0
        assert not {"blocking_seconds", "blocked_sessions"} & result.after.keys()
        assert result.waiters == ()
        assert "grant the role PROCESS" in logged(control)

    def test_a_server_that_keeps_no_books_has_the_list(self, database: Database) -> None:
        database.table("item", rows=10)

        result, _ = kept_waiting(database)

        assert [waiter.object for waiter in result.waiters] == [f"{database.name}.item"]

    def test_others_that_wait_for_another_table_are_none_of_its(self, database: Database) -> None:
        for name in ("item", "other"):
            database.table(name, rows=10)
        control = RecordingControl()
        with ThreadPoolExecutor(2) as threads:
            with database.reader_of("item"), database.server.connect(database.name) as connection:
                connection.query("LOCK TABLES other WRITE")
                ended = threads.submit(database.maintain, "vacuum", control, table="item", lock_timeout_s=20)
                wait_until(lambda: waits(database, "OPTIMIZE"), "it does not wait")
                reading = threads.submit(database.run, "SELECT COUNT(*) FROM other")
                wait_until(lambda: waits(database, "FROM other"), "nobody waits")
                looks = len(control.progresses)
                wait_until(lambda: len(control.progresses) > looks + 2, "nobody looks")
            reading.result(PATIENCE)
            result = ended.result(PATIENCE)

        assert (result.after["blocking_seconds"], result.waiters) == (0.0, ())

    def test_a_quick_statement_costs_no_connection(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(watching, "INTERVAL", 10.0)
        monkeypatch.setattr(Waiters, "look", None)
        database.table("item", rows=10)

        result = database.maintain("vacuum", table="item")

        assert (result.outcome, result.after["blocking_seconds"]) == (Outcome.COMPLETED, 0.0)
        assert result.after["lock_sample_seconds"] == INTERVAL

    def test_a_look_that_hangs_keeps_no_table_that_is_done(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(watching, "INTERVAL", 0.001)
        monkeypatch.setattr(watching, "_LAST_LOOK", 0.05)
        let_go, looks = threading.Event(), threading.Event()

        def hang(*_: object) -> None:
            looks.set()
            let_go.wait(PATIENCE)

        monkeypatch.setattr(Waiters, "look", hang)
        database.table("item", rows=20_000)
        control = RecordingControl()
        try:
            result = database.maintain("vacuum", control, table="item")
        finally:
            told = len(control.progresses)
            hung = looks.is_set() and not let_go.is_set()
            let_go.set()

        assert hung
        assert result.outcome is Outcome.COMPLETED
        assert len(control.progresses) == told, "what came late is told no more"
