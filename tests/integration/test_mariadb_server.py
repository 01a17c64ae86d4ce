"""The MariaDB that other tests stand on: whole while they use it, and gone when they are."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import mariadb as servers
from tests.mariadb import MariadbServer, NoServerError, find_server
from tests.postgres_guard import processes_in

ROOT = Path(__file__).parents[2]
_PATIENCE = 20.0
_OWNER = """
import time
from tests.mariadb import MariadbServer

server = MariadbServer()
print(server.folder, flush=True)
time.sleep(60)
"""


class TestItsEnd:
    def test_it_goes_with_an_owner_that_is_killed(self) -> None:
        owner = subprocess.Popen([sys.executable, "-c", _OWNER], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert owner.stdout is not None
        folder = Path(owner.stdout.readline().strip())
        assert processes_in(folder)

        owner.kill()
        owner.communicate()

        deadline = time.monotonic() + _PATIENCE
        while folder.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not folder.exists()
        assert not processes_in(folder)


class TestItsStrength:
    def test_what_was_committed_outlives_a_crash(self, mariadb: MariadbServer) -> None:
        name = mariadb.create_database()
        mariadb.run("CREATE TABLE kept (id INT)", "INSERT INTO kept VALUES (7)", database=name)

        mariadb.kill()
        mariadb.start()

        assert mariadb.run("SELECT id FROM kept", database=name) == [(7,)]
        mariadb.drop_database(name)

    def test_nobody_comes_in_without_the_password(self, mariadb: MariadbServer) -> None:
        with pytest.raises(Exception, match="Access denied"):
            mariadb.connect(password="")


class TestItsPrograms:
    def test_without_them_nothing_is_skipped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nowhere")
        monkeypatch.setattr(servers, "_PLACES", ("/nowhere",))

        with pytest.raises(NoServerError, match="nothing is skipped for it"):
            find_server()
