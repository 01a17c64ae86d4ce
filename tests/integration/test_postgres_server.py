"""The server that other tests stand on: whole while they use it, and gone when they are."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests import postgres_binaries
from tests.lodgings import HOST
from tests.postgres import PostgresServer, Stop
from tests.postgres_binaries import Account, NoServerError, find_binaries
from tests.postgres_guard import processes_in

_PATIENCE = 20.0
_OWNER = """
import signal
import time
from tests.postgres import PostgresServer

# The tests may run in the background, where SIGINT is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
server = PostgresServer()
print(server.folder, flush=True)
time.sleep(60)
"""


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """Start a server that these tests may end, for the session's is in use."""
    with PostgresServer() as server:
        yield server


class TestDatabases:
    def test_a_test_finds_its_own_empty(self, postgres_url: str) -> None:
        with psycopg.connect(postgres_url) as connection:
            [(tables,)] = connection.execute(
                "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
            ).fetchall()

        assert tables == 0

    def test_they_hold_any_text(self, postgres_url: str) -> None:
        with psycopg.connect(postgres_url) as connection:
            [(encoding, text)] = connection.execute(
                "SELECT getdatabaseencoding(), 'żółw' || U&'\\+01F422'"
            ).fetchall()

        assert (encoding, text) == ("UTF8", "żółw🐢")

    def test_one_is_a_copy_of_its_template(self, postgres: PostgresServer) -> None:
        template = postgres.create_database()
        with psycopg.connect(template) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS number")
        copy = postgres.create_database(template)

        with psycopg.connect(copy) as connection:
            assert connection.execute("SELECT number FROM kept").fetchall() == [(1,)]
        for url in (copy, template):
            postgres.drop_database(url)

    def test_one_is_dropped_under_its_connections(self, postgres: PostgresServer) -> None:
        url = postgres.create_database()
        with psycopg.connect(url, autocommit=True) as connection:
            postgres.drop_database(url)

            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError, match="does not exist"):
            psycopg.connect(url)


class TestOutages:
    @pytest.mark.parametrize("how", [Stop.FAST, Stop.IMMEDIATE, Stop.KILLED])
    def test_what_was_committed_is_there_after_a_restart(self, own_server: PostgresServer, how: Stop) -> None:
        url = own_server.create_database()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS number")

            own_server.restart(how)

            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT number FROM kept").fetchall() == [(1,)]

    def test_while_it_is_stopped_connections_are_refused(self, own_server: PostgresServer) -> None:
        own_server.stop()

        with pytest.raises(psycopg.OperationalError, match="refused"):
            psycopg.connect(own_server.url())
        own_server.start()
        psycopg.connect(own_server.url()).close()

    def test_connections_are_cut(self, own_server: PostgresServer) -> None:
        url = own_server.create_database()
        with psycopg.connect(url) as connection:
            assert own_server.cut(url) == 1

            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")


class TestEnd:
    def test_nothing_is_left_of_a_closed_one(self) -> None:
        with PostgresServer() as server:
            folder, port = server.folder, server.port

        assert not folder.exists()
        assert not processes_in(folder)
        with pytest.raises(psycopg.OperationalError, match="refused"):
            psycopg.connect(host=HOST, port=port)

    def test_nothing_is_left_of_one_that_was_killed(self) -> None:
        with PostgresServer() as server:
            [segment] = _segments(server.pid)
            server.stop(Stop.KILLED)

        assert segment not in Path("/proc/sysvipc/shm").read_text()

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
    def test_nothing_is_left_when_its_owner_is_killed(self, number: signal.Signals) -> None:
        owner = subprocess.Popen([sys.executable, "-c", _OWNER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert owner.stdout is not None
        folder = Path(owner.stdout.readline().decode().strip())
        with owner.stdout:
            owner.send_signal(number)
            owner.wait(_PATIENCE)

        _wait_until_gone(folder)
        assert not processes_in(folder)


class TestBinaries:
    def test_a_machine_without_a_server_takes_the_one_from_the_package(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(postgres_binaries, "_of_the_machine", lambda: iter(()))

        with PostgresServer() as server, psycopg.connect(server.url()) as connection:
            assert connection.info.server_version >= 180_000

    def test_an_environment_out_of_the_servers_reach_is_copied(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(postgres_binaries, "_of_the_machine", lambda: iter(()))
        monkeypatch.setattr(postgres_binaries, "_version", lambda folder, account: ())

        with PostgresServer() as server, psycopg.connect(server.url()) as connection:
            assert connection.info.server_version >= 180_000
            assert (server.folder / "copy").is_dir()

    def test_none_at_all_is_an_error_that_tells_what_to_do(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(postgres_binaries, "_of_the_machine", lambda: iter(()))
        monkeypatch.setattr(postgres_binaries, "_of_the_package", lambda: None)

        with pytest.raises(NoServerError, match="apt-get install postgresql"):
            find_binaries(Account.unprivileged(), tmp_path / "copy")


def _segments(pid: int) -> list[str]:
    rows = [row.split() for row in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]]
    return [row[1] for row in rows if row[4] == str(pid)]


def _wait_until_gone(folder: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while folder.exists():
        assert time.monotonic() < deadline, list(folder.iterdir())
        time.sleep(0.02)
