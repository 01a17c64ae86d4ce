"""What a server says of its sessions and replicas, and what an owner's query says, against a real server."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from struct import pack
from typing import Any

import psycopg
import pytest
from psycopg import pq
from psycopg.conninfo import make_conninfo

from tests.integration.operations.postgres_ground import change, column, database, value
from tests.lodgings import wait_until
from worker_service.domain.errors import TargetUnavailableError
from worker_service.domain.target import Target
from worker_service.domain.throttle import Throttle
from worker_service.operations.postgresql import PostgresqlEngine

LSN = "SELECT (pg_current_wal_lsn() - '0/0')::bigint"


def held_back(url: str, *, seconds: float = 2.0, **throttle: Any) -> str:
    target = Target(name="app", url=url, engine="postgresql", throttle=Throttle(**throttle))
    return PostgresqlEngine().held_back(target, seconds=seconds)


@contextmanager
def role(url: str, *grants: str) -> Iterator[str]:
    """Lend the URL of a role that may log in, and what is granted."""
    change(url, "CREATE ROLE keeper LOGIN", *(f"GRANT {what} TO keeper" for what in grants))
    yield url.replace("postgres@", "keeper@")
    change(url, "DROP OWNED BY keeper", "DROP ROLE keeper")


@contextmanager
def at_work(url: str) -> Iterator[None]:
    """Keep a session of somebody else at work."""
    with database(url) as connection:

        def work() -> None:
            with suppress(psycopg.errors.QueryCanceled):
                connection.execute("SELECT pg_sleep(60)")

        thread = threading.Thread(target=work)
        thread.start()
        query = "SELECT state FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()"
        wait_until(lambda: column(url, query) == ["active"], "the session is not at work")
        yield
        connection.cancel_safe()
        thread.join()


class Replica:
    """The far side of a replication that receives the log and says of it what the test wants."""

    def __init__(self, url: str, name: str) -> None:
        self._url, self._name = url, name
        # Below psycopg's own connection, which knows nothing of replication.
        self._line = pq.PGconn.connect(make_conninfo(url, replication="true", application_name=name).encode())
        started = self._line.exec_(
            f"START_REPLICATION PHYSICAL {value(url, 'SELECT pg_current_wal_lsn()')}".encode()
        )
        assert started.status == pq.ExecStatus.COPY_BOTH

    def write(self, megabytes: int) -> None:
        """Have the server write so much into its log, and wait until it was sent."""
        record = "SELECT pg_logical_emit_message(false, 'test', repeat('x', 1000000)) FROM generate_series(1, %s)"
        column(self._url, record, megabytes)
        sent = "SELECT sent_lsn >= pg_current_wal_flush_lsn() FROM pg_stat_replication WHERE application_name = %s"
        wait_until(lambda: self._received() and column(self._url, sent, self._name) == [True], "it was not sent")

    def says(self, replayed: int) -> None:
        """Say that it has replayed the log up to there."""
        self._line.put_copy_data(b"r" + pack("!qqqqB", replayed, replayed, replayed, 0, 0))
        self._line.flush()
        heard = "SELECT replay_lsn - '0/0' FROM pg_stat_replication WHERE application_name = %s"
        wait_until(lambda: column(self._url, heard, self._name) == [replayed], "it was not heard")

    def close(self) -> None:
        self._line.finish()
        here = "SELECT 1 FROM pg_stat_replication WHERE application_name = %s"
        wait_until(lambda: not column(self._url, here, self._name), "it has not gone")

    def _received(self) -> bool:
        while self._line.get_copy_data(1)[0] > 0:
            pass
        return True


@pytest.fixture
def replica(postgres_url: str) -> Iterator[Replica]:
    opened = Replica(postgres_url, "far")
    yield opened
    opened.close()


class TestActiveSessions:
    def test_those_of_others_at_work_are_counted(self, postgres_url: str) -> None:
        with at_work(postgres_url):
            assert held_back(postgres_url, max_active_sessions=0) == "1 active sessions, at most 0"
            assert held_back(postgres_url, max_active_sessions=1) == ""

    def test_idle_ones_and_our_own_are_not(self, postgres_url: str) -> None:
        ours = f"{postgres_url}?application_name=overhaul%3Aa%3A1"
        with database(postgres_url), at_work(ours):
            assert held_back(postgres_url, max_active_sessions=0) == ""

    def test_a_role_that_may_not_see_them_holds_back_and_is_told_the_remedy(self, postgres_url: str) -> None:
        refused = pytest.raises(TargetUnavailableError, match="GRANT pg_read_all_stats TO it")
        with role(postgres_url) as keeper, at_work(postgres_url), refused:
            held_back(keeper, max_active_sessions=5)

    def test_the_remedy_helps(self, postgres_url: str) -> None:
        with role(postgres_url, "pg_read_all_stats") as keeper, at_work(postgres_url):
            assert held_back(keeper, max_active_sessions=0) == "1 active sessions, at most 0"


class TestReplication:
    def test_without_a_replica_nothing_is_behind(self, postgres_url: str) -> None:
        assert held_back(postgres_url, max_replication_lag=timedelta(0), max_replication_bytes=0) == ""

    def test_bytes_that_a_replica_has_not_replayed_hold_back_until_it_has(
        self, postgres_url: str, replica: Replica
    ) -> None:
        replica.says(value(postgres_url, LSN))
        replica.write(megabytes=2)
        reason = held_back(postgres_url, max_replication_bytes=1_000_000)

        replica.says(value(postgres_url, LSN))

        assert re.fullmatch(r"replica far is \d{7} bytes behind, at most 1000000", reason)
        assert held_back(postgres_url, max_replication_bytes=1_000_000) == ""

    def test_the_time_that_a_replica_is_behind_holds_back(self, postgres_url: str, replica: Replica) -> None:
        replica.write(megabytes=1)
        replica.says(value(postgres_url, LSN))

        reason = held_back(postgres_url, max_replication_lag=timedelta(0))
        assert re.fullmatch(r"replica far is \d+(\.\d+)? s behind, at most 0", reason)
        assert held_back(postgres_url, max_replication_lag=timedelta(minutes=5)) == ""

    def test_a_role_that_may_not_see_replicas_holds_back(self, postgres_url: str, replica: Replica) -> None:
        replica.says(value(postgres_url, LSN))
        with role(postgres_url) as keeper, pytest.raises(TargetUnavailableError, match="GRANT pg_read_all_stats"):
            held_back(keeper, max_replication_lag=timedelta(minutes=5))


class TestTheOwnersQuery:
    def test_it_finds_the_tables_of_the_role(self, postgres_url: str) -> None:
        change(postgres_url, "CREATE TABLE shop (open boolean)", "INSERT INTO shop VALUES (true)")

        assert held_back(postgres_url, while_sql="SELECT open FROM shop") == "while_sql is true"
        assert held_back(postgres_url, unless_sql="SELECT open FROM shop") == ""

    @pytest.mark.parametrize(
        ("query", "error"),
        [
            ("SELECT true FROM nowhere", 'relation "nowhere" does not exist'),
            ("SELECT pg_sleep(9) IS NULL", "statement timeout"),
            ("SELECT set_config('default_transaction_read_only', 'off', false) = ''; DROP TABLE kept", "multiple"),
            ("WITH gone AS (DELETE FROM kept RETURNING 1) SELECT true FROM gone", "read-only transaction"),
        ],
    )
    def test_one_that_fails_holds_back_and_changes_nothing(
        self, postgres_url: str, query: str, error: str
    ) -> None:
        change(postgres_url, "CREATE TABLE kept AS SELECT 1")

        with pytest.raises(TargetUnavailableError, match=error):
            held_back(postgres_url, seconds=0.3, while_sql=query)

        assert column(postgres_url, "SELECT count(*) FROM kept") == [1]

    def test_a_percent_sign_means_itself(self, postgres_url: str) -> None:
        assert held_back(postgres_url, while_sql="SELECT 'a%s' LIKE 'a%'") == "while_sql is true"

    def test_a_server_that_is_away_holds_back(self) -> None:
        with pytest.raises(TargetUnavailableError, match="server cannot be reached"):
            held_back("postgresql://postgres@127.0.0.1:1/app", while_sql="SELECT false")

    def test_the_first_reason_is_told(self, postgres_url: str) -> None:
        with at_work(postgres_url):
            reason = held_back(postgres_url, max_active_sessions=0, while_sql="SELECT true")

        assert reason == "1 active sessions, at most 0"
