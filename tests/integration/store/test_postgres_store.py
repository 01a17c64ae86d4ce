"""What only the PostgreSQL store has: its URL, its schema, its connections, and other managers."""

import sys
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from manager_service.domain.errors import InvalidStoreError, StoreUnavailableError
from manager_service.domain.fleet import Timing
from manager_service.domain.ports import JobStore
from manager_service.store import migrate_store, open_store, postgresql_door
from manager_service.store.errors import ConnectionLostError
from manager_service.store.postgresql import PostgresConnection
from manager_service.store.postgresql_dialect import postgresql_dialect
from manager_service.store.postgresql_door import Door, parse
from manager_service.store.schema import HEAD
from manager_service.store.tables import metadata
from tests.doubles import CountingIds, FakeClock


def opened(url: str) -> JobStore:
    return open_store(url, clock=FakeClock(), ids=CountingIds(), timing=Timing())


def execute(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


class TestUrls:
    @pytest.mark.parametrize(
        ("url", "why"),
        [
            ("postgresql+asyncpg://host/db", "no driver of a job store"),
            ("postgresql://host", "names no database"),
            ("postgresql://host/db?no_such_option=1", "none that PostgreSQL takes"),
        ],
    )
    def test_a_wrong_one_is_refused(self, url: str, why: str) -> None:
        with pytest.raises(InvalidStoreError, match=f"{why}.*; write postgresql://USER@HOST:PORT/DATABASE"):
            opened(url)

    def test_a_missing_driver_is_told_with_the_remedy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "psycopg", None)
        for name in [name for name in sys.modules if name.startswith(("manager_service.store.", "psycopg."))]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.delattr("manager_service.store.replicated")

        with pytest.raises(InvalidStoreError, match=r"pip install 'overhaul\[postgresql\]'"):
            opened("postgresql://host/db")

    def test_nobody_there_is_told(self) -> None:
        with pytest.raises(StoreUnavailableError, match="refused"):
            opened("postgresql://postgres@127.0.0.1:1/db?password=geheim")


class TestSchema:
    def test_a_database_without_one_is_refused_and_the_remedy_named(self, postgres_url: str) -> None:
        with pytest.raises(InvalidStoreError, match="holds no job store yet; run: overhaul-manager migrate"):
            opened(postgres_url)

    def test_several_programs_make_it_at_once(self, postgres_url: str) -> None:
        with ThreadPoolExecutor() as pool:
            before = list(pool.map(migrate_store, [postgres_url] * 4))

        assert sorted(before) == ["", HEAD, HEAD, HEAD]

    def test_the_migrations_make_the_tables_that_the_verbs_know_but_for_foreign_keys(
        self, postgres_url: str
    ) -> None:
        migrate_store(postgres_url)
        engine = create_engine(
            "postgresql+psycopg://", creator=lambda: psycopg.connect(postgres_url), poolclass=NullPool
        )

        with engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            differences = compare_metadata(context, metadata)

        assert {difference[0] for difference in differences} == {"add_fk"}

    def test_a_newer_one_is_refused(self, postgres_url: str) -> None:
        migrate_store(postgres_url)
        execute(postgres_url, "UPDATE alembic_version SET version_num = '9999'")

        for program in (migrate_store, opened):
            with pytest.raises(
                InvalidStoreError, match=r"made by a newer release \(schema 9999\); upgrade this manager"
            ):
                program(postgres_url)

    def test_an_older_one_is_refused_until_it_is_migrated(self, postgres_url: str) -> None:
        migrate_store(postgres_url)
        execute(postgres_url, "UPDATE alembic_version SET version_num = '0004'")

        with pytest.raises(InvalidStoreError, match=f"has the schema 0004, this release needs {HEAD}; run"):
            opened(postgres_url)

    def test_tables_of_another_program_are_not_touched(self, postgres_url: str) -> None:
        execute(postgres_url, "CREATE TABLE alembic_version (version_num text)")

        with pytest.raises(InvalidStoreError, match="tables of another program"):
            migrate_store(postgres_url)

    def test_an_sqlite_store_needs_no_such_program(self) -> None:
        with pytest.raises(InvalidStoreError, match="migrated when it is opened"):
            migrate_store("sqlite:///jobs.db")

    def test_no_other_database_is_migrated(self) -> None:
        with pytest.raises(InvalidStoreError, match="only a store on PostgreSQL is migrated; write postgresql://"):
            migrate_store("mysql://host/db")


class TestConnections:
    ECHO = "SELECT name FROM json_array_elements_text(CAST($1 AS JSON)) AS name"

    def test_one_that_the_server_ended_while_its_process_stood_still_is_lost_and_opened_again(
        self, postgres_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(postgresql_door.SETTINGS, "idle_in_transaction_session_timeout", "20ms")
        connection = PostgresConnection(Door(parse(postgres_url)), postgresql_dialect())
        connection.begin()
        assert connection.ask_names(self.ECHO, ["a"])() == ["a"]
        assert connection._pipeline is not None
        while not connection._pipeline.has_news():
            pass

        with pytest.raises(ConnectionLostError, match=r"idle-in-transaction timeout|server closed the connection"):
            connection.ask_names(self.ECHO, ["a"])()

        connection.begin()
        assert connection.ask_names(self.ECHO, ["a"])() == ["a"]
        connection.close()

    def test_a_manager_that_stays_in_the_way_of_another_ones_start_is_told(
        self, postgres_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(postgresql_door.SETTINGS, "lock_timeout", "20ms")
        migrate_store(postgres_url)
        execute(postgres_url, "INSERT INTO store_state VALUES (1, 0) ON CONFLICT DO NOTHING")
        with psycopg.connect(postgres_url) as stopped:
            stopped.execute("SELECT mark FROM store_state FOR UPDATE")

            with pytest.raises(StoreUnavailableError, match=r"another manager is in the way: .*lock timeout"):
                opened(postgres_url)
