"""What a real server says of its sessions and its replication, and what an owner's query says."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import pymysql
import pytest

from tests.integration.operations.mariadb_databases import Database
from tests.lodgings import wait_until
from worker_service.domain.errors import TargetUnavailableError
from worker_service.domain.target import Target
from worker_service.domain.throttle import Throttle
from worker_service.operations.mariadb import MariadbEngine
from worker_service.operations.mariadb.connection import ServerError
from worker_service.operations.mariadb.throttling import by_replication, replication

SLEEPS = "SELECT ID FROM information_schema.PROCESSLIST WHERE INFO LIKE '%SLEEP(60)%' AND ID <> CONNECTION_ID()"


def held_back(database: Database, *, url: str = "", seconds: float = 2.0, **throttle: Any) -> str:
    address = url or database.server.url(database.name)
    target = Target(name="app", url=address, engine="mariadb", throttle=Throttle(**throttle))
    return MariadbEngine().held_back(target, seconds=seconds)


@contextmanager
def at_work(database: Database, remark: str = "") -> Iterator[None]:
    """Keep a session of somebody else at work."""

    def work() -> None:
        with suppress(pymysql.MySQLError):
            database.run(f"{remark} SELECT SLEEP(60)")

    thread = threading.Thread(target=work)
    thread.start()
    wait_until(lambda: bool(database.run(SLEEPS)), "the session is not at work")
    yield
    for (number,) in database.run(SLEEPS):
        database.run(f"KILL {number}")
    thread.join()


class TestActiveSessions:
    @pytest.mark.parametrize("grants", [(), ("SELECT",)])
    def test_those_of_others_at_work_are_counted_whoever_asks(
        self, database: Database, grants: tuple[str, ...]
    ) -> None:
        url = database.role(*grants) if grants else ""
        with at_work(database):
            assert held_back(database, url=url, max_active_sessions=0) == "1 active sessions, at most 0"
            assert held_back(database, url=url, max_active_sessions=1) == ""

    def test_idle_ones_and_our_own_are_not(self, database: Database) -> None:
        with database.server.connect(), at_work(database, "/* overhaul:a:1 */"):
            assert held_back(database, max_active_sessions=0) == ""


class TestReplication:
    def test_a_server_that_is_no_replica_says_that_it_cannot_know(self, database: Database) -> None:
        with pytest.raises(TargetUnavailableError, match="lag is unknown: this server is no replica"):
            held_back(database, max_replication_lag=timedelta(seconds=30))

    def test_a_replica_that_does_not_replicate_says_so(self, database: Database) -> None:
        database.run("CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT=1, MASTER_USER='nobody'")
        try:
            with pytest.raises(TargetUnavailableError, match="replication does not run"):
                held_back(database, max_replication_lag=timedelta(seconds=30))
        finally:
            database.run("RESET SLAVE ALL")

    def test_the_primary_that_it_is_farthest_behind_holds_back(self) -> None:
        throttle = Throttle(max_replication_lag=timedelta(seconds=30))
        channels = [{"Seconds_Behind_Master": 2}, {"Seconds_Behind_Master": 31}]

        assert by_replication(channels, throttle) == "this replica is 31 s behind, at most 30"
        assert by_replication(channels[:1], throttle) == ""
        assert by_replication([{"Seconds_Behind_Source": 0}], throttle) == "", "as MySQL calls it"

    @pytest.mark.parametrize("known", ["SHOW ALL SLAVES STATUS", "SHOW REPLICA STATUS", "SHOW SLAVE STATUS"])
    def test_it_is_asked_in_the_words_of_every_server(self, known: str) -> None:
        class Server:
            def records(self, sql: str) -> list[dict[str, int]]:
                if sql != known:
                    raise ServerError(1064, "You have an error in your SQL syntax")
                return [{"Seconds_Behind_Master": 7}]

        assert replication(Server()) == [{"Seconds_Behind_Master": 7}]

    def test_a_right_that_is_missing_is_told(self, database: Database) -> None:
        with pytest.raises(TargetUnavailableError, match=r"need .*(MONITOR|SUPER|CLIENT)"):
            held_back(database, url=database.role("SELECT"), max_replication_lag=timedelta(seconds=30))


class TestTheOwnersQuery:
    def test_it_finds_the_tables_of_the_database(self, database: Database) -> None:
        database.run("CREATE TABLE shop (open BOOL)", "INSERT INTO shop VALUES (TRUE)")

        assert held_back(database, while_sql="SELECT open FROM shop") == "while_sql is true"
        assert held_back(database, unless_sql="SELECT open FROM shop") == ""

    @pytest.mark.parametrize(
        ("query", "error"),
        [
            ("SELECT TRUE FROM nowhere", "nowhere' doesn't exist"),
            ("SELECT SLEEP(9) FROM kept", "max_statement_time exceeded"),
            ("SELECT 1; DROP TABLE kept", "error in your SQL syntax"),
            ("WITH a AS (SELECT 1) DELETE FROM kept", "READ ONLY transaction|error in your SQL syntax"),
        ],
    )
    def test_one_that_fails_holds_back_and_changes_nothing(
        self, database: Database, query: str, error: str
    ) -> None:
        database.run("CREATE TABLE kept SELECT 1")

        with pytest.raises(TargetUnavailableError, match=error):
            held_back(database, seconds=0.3, while_sql=query)

        assert database.run("SELECT COUNT(*) FROM kept") == [(1,)]

    def test_a_percent_sign_means_itself(self, database: Database) -> None:
        assert held_back(database, while_sql="SELECT 'a%s' LIKE 'a%'") == "while_sql is true"

    def test_a_server_that_is_away_holds_back(self, database: Database) -> None:
        with pytest.raises(TargetUnavailableError, match="connect"):
            held_back(database, url="mariadb://nobody@127.0.0.1:1/app", while_sql="SELECT FALSE")
