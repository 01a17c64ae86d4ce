"""A private PostgreSQL server, for the tests and the benchmarks, which start it themselves."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import LiteralString, Self

import psycopg
from psycopg import sql

from tests import postgres_guard
from tests.lodgings import HOST, PATIENCE, Port, new_folder, wait_until
from tests.postgres_binaries import Account, find_binaries, packaged_binaries
from tests.postgres_guard import processes_in

SUPERUSER = "postgres"
# A crash of the server loses nothing by these, only one of the machine would. Dynamic memory in the data folder
# leaves nothing behind when the server is killed. The log is short because the folder may be in memory.
_QUICK = {
    "fsync": "off",
    "full_page_writes": "off",
    "dynamic_shared_memory_type": "mmap",
    "max_wal_size": "256MB",
}


class Stop(Enum):
    """How a server ends: what it does about the transactions that are under way."""

    SMART = signal.SIGTERM  # waits for the clients to leave
    FAST = signal.SIGINT  # rolls them back, and writes a checkpoint
    IMMEDIATE = signal.SIGQUIT  # leaves them to the recovery at the next start
    KILLED = signal.SIGKILL  # as a crash would


class PostgresServer:
    """A PostgreSQL of its own user, folder and port, which never outlives the process that made it.

    Args:
        durable: Whether it waits for the disk, as a server that is installed does; tests have no use for that.
        settings: What to set beside the configuration that `initdb` writes.
        locale: The locale of its databases.
        packaged: Whether it is the one from PyPI, which is newer than many a machine's.
    """

    def __init__(
        self,
        *,
        durable: bool = False,
        settings: Mapping[str, str] | None = None,
        locale: str = "C.UTF-8",
        packaged: bool = False,
    ) -> None:
        self.settings = {**({} if durable else _QUICK), **(settings or {})}
        self._numbers = itertools.count(1)
        self._account = Account.unprivileged()
        self._port = Port()
        self.folder = new_folder("overhaul-postgres-", durable=durable)
        self._data = self.folder / "data"
        os.chown(self.folder, self._account.uid, self._account.gid)
        guard = [sys.executable, "-S", postgres_guard.__file__, str(self.folder)]
        self._guard = subprocess.Popen(guard, stdin=subprocess.PIPE, start_new_session=True)
        self._process: subprocess.Popen[str] | None = None
        try:
            find = packaged_binaries if packaged else find_binaries
            self._binaries = find(self._account, self.folder / "copy")
            self._initialise(locale)
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def port(self) -> int:
        """Return the port that it has for good."""
        return self._port.number

    @property
    def pid(self) -> int:
        """Return the process id of the postmaster; its children are the processes of the database."""
        return self._running().pid

    @property
    def version(self) -> str:
        """Return its version, as ``15.18``."""
        with self._connect() as connection:
            return connection.info.parameter_status("server_version") or ""

    @property
    def log(self) -> str:
        """Return what the server has said."""
        return (self.folder / "log").read_text(errors="replace")

    def program(self, name: str) -> Path:
        """Return one of the programs that came with it, as ``pgbench``; it may be missing."""
        return self._binaries / name

    def url(self, database: str = SUPERUSER) -> str:
        """Return the URL of a database."""
        return f"postgresql://{SUPERUSER}@{HOST}:{self.port}/{database}"

    def start(self) -> None:
        """Start it, on the port that it always has, and wait until it takes connections."""
        settings = {"listen_addresses": HOST, "unix_socket_directories": str(self.folder), **self.settings}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = [str(self._binaries / "postgres"), "-D", str(self._data), "-p", str(self.port), *options]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
                text=True,
                **self._account.options,
            )
        wait_until(self._is_ready, "the server is not ready")

    def stop(self, how: Stop = Stop.FAST) -> None:
        """End it, so that connections are refused until it is started again."""
        process = self._running()
        process.send_signal(how.value)
        process.wait(PATIENCE)
        self._process = None
        # A killed one leaves its children behind, which keep the next from starting until they have noticed.
        wait_until(lambda: not processes_in(self.folder), "the server's processes have not ended")

    def restart(self, how: Stop = Stop.FAST) -> None:
        """End it and start it again."""
        self.stop(how)
        self.start()

    def cut(self, url: str) -> int:
        """End the connections to a database, whatever they do, and return how many there were."""
        with self._connect() as connection:
            ended = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [_name(url)]
            )
            return ended.rowcount

    def create_database(self, template: str = "") -> str:
        """Make a database and return its URL; the template's, if one is given, has to be without connections."""
        name = f"test_{next(self._numbers)}"
        self._change("CREATE DATABASE {} TEMPLATE {}", name, _name(template) or "template0")
        return self.url(name)

    def ask_for_password(self, role: str) -> None:
        """Let a role in by its password alone from now on; the others need none."""
        rules = self._data / "pg_hba.conf"
        rules.write_text(f"host all {role} {HOST}/32 scram-sha-256\n{rules.read_text()}")
        with self._connect() as connection:
            connection.execute("SELECT pg_reload_conf()")
        wait_until(lambda: not self._lets_in(role), "the server goes on to let the role in without a password")

    def checkpoint(self) -> None:
        """Write down what came before, so that nothing that follows pays for it."""
        with self._connect() as connection:
            connection.execute("CHECKPOINT")

    def drop_database(self, url: str) -> None:
        """Remove a database and end the connections to it."""
        self._change("DROP DATABASE {} WITH (FORCE)", _name(url))

    def close(self) -> None:
        """End it at once and remove its folder."""
        self._guard.communicate()
        if self._process is not None:
            self._process.wait()
        self._port.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _initialise(self, locale: str) -> None:
        options = [
            "-D",
            str(self._data),
            "-U",
            SUPERUSER,
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale",
            locale,
            "--no-sync",
        ]
        made = subprocess.run(
            [self._binaries / "initdb", *options, "--no-instructions"],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            **self._account.options,
        )
        if made.returncode:
            raise AssertionError(f"no database cluster:\n{made.stdout}{made.stderr}")

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise AssertionError("the server does not run")
        return self._process

    def _is_ready(self) -> bool:
        if self._running().poll() is not None:
            raise AssertionError(f"the server has not started:\n{self.log}")
        # The last line that a server writes here tells how far it is, and is its own if it has its number.
        state = self._data / "postmaster.pid"
        lines = state.read_text().split() if state.exists() else []
        return lines[:1] == [str(self.pid)] and lines[-1] in {"ready", "standby"}

    def _lets_in(self, role: str) -> bool:
        try:
            psycopg.connect(self.url(), user=role, password="not the password").close()
        except psycopg.OperationalError:
            return False
        return True

    def _change(self, statement: LiteralString, *names: str) -> None:
        with self._connect() as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(self.url(), autocommit=True)


def _name(url: str) -> str:
    return url.rpartition("/")[2]
