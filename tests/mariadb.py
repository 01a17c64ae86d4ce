"""A private MariaDB server, for the tests, which start it themselves."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import pymysql

from tests import postgres_guard
from tests.lodgings import HOST, PATIENCE, Port, new_folder, wait_until
from tests.postgres_binaries import Account
from tests.postgres_guard import processes_in

ADMIN = "admin"
PASSWORD = "for-tests-only"
_PLACES = ("/usr/sbin", "/usr/local/sbin", "/usr/libexec", "/usr/local/bin", "/opt/mariadb/bin")
_SHARES = ("share/mysql", "share/mariadb", "share")
_TABLES = ("mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql")
# A crash of the server loses nothing by these, only one of the machine would.
_QUICK = {
    "innodb-flush-log-at-trx-commit": "2",
    "innodb-log-file-size": "32M",
    "innodb-buffer-pool-size": "64M",
    "innodb-flush-method": "nosync",
    "innodb-doublewrite": "0",
    "sync-frm": "0",
}

Row = tuple[Any, ...]


class NoServerError(Exception):
    """The programs of a MariaDB server are nowhere to be found."""

    def __str__(self) -> str:
        return (
            "There is no MariaDB server here, and nothing is skipped for it. On Debian `make install` brings one, "
            "as does `apt-get install mariadb-server-core`, which starts no service."
        )


class MariadbServer:
    """A MariaDB of its own user, folder and port, which never outlives the process that made it.

    Args:
        settings: What to set beside the server's defaults, as ``performance-schema``.
    """

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        self.settings = {**_QUICK, **(settings or {})}
        self._numbers = itertools.count(1)
        self._account = Account.unprivileged()
        self._program, self._share = find_server()
        self._port = Port()
        self.folder = new_folder("overhaul-mariadb-")
        self.data = self.folder / "data"
        guard = [sys.executable, "-S", postgres_guard.__file__, str(self.folder)]
        self._guard = subprocess.Popen(guard, stdin=subprocess.PIPE, start_new_session=True)
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._initialise()
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def port(self) -> int:
        """Return the port that it has for good."""
        return self._port.number

    @property
    def log(self) -> str:
        """Return what the server has said."""
        return (self.folder / "log").read_text(errors="replace")

    def url(self, database: str = "mysql", *, user: str = ADMIN, password: str = PASSWORD) -> str:
        """Return the URL of a database, with the password in it."""
        return f"mariadb://{user}:{password}@{HOST}:{self.port}/{quote(database, safe='')}"

    def connect(self, database: str | None = None, **options: Any) -> "pymysql.Connection[Any]":
        """Connect past Overhaul's engine, for what the tests read by themselves."""
        account = {"user": ADMIN, "password": PASSWORD, "autocommit": True, "ssl_disabled": True, **options}
        return pymysql.connect(host=HOST, port=self.port, database=database, **account)

    def run(self, *statements: str, database: str | None = None) -> list[Row]:
        """Run statements as the administrator and return the last one's rows."""
        with self.connect(database) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def create_database(self, name: str = "") -> str:
        """Make an empty database and return its name."""
        name = name or f"test_{next(self._numbers)}"
        self.run(f"CREATE DATABASE {quoted(name)} CHARACTER SET utf8mb4")
        return name

    def drop_database(self, name: str) -> None:
        """Remove a database."""
        self.run(f"DROP DATABASE IF EXISTS {quoted(name)}")

    def start(self, **more: str) -> None:
        """Start it, on the port that it always has, and wait until it takes connections."""
        own = {"port": str(self.port), "bind-address": HOST, "socket": str(self.folder / "socket")}
        own |= {"pid-file": str(self.folder / "pid"), "init-file": str(self.folder / "accounts.sql")}
        settings = {**own, **self.settings, **{name.replace("_", "-"): value for name, value in more.items()}}
        command = [*self._command(), *(f"--{name}={value}" for name, value in settings.items())]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
                **self._account.options,
            )
        wait_until(self._is_ready, "the server is not ready")

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in good order."""
        self._end(signal.SIGTERM)

    def close(self) -> None:
        """End it at once and remove its folder."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._guard.communicate()
        self._port.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _command(self) -> list[str]:
        temporary = self.folder / "tmp"
        return [
            str(self._program),
            "--no-defaults",
            f"--datadir={self.data}",
            f"--tmpdir={temporary}",
            f"--lc-messages-dir={self._share}",
            "--skip-name-resolve",
        ]

    def _end(self, number: signal.Signals) -> None:
        process = self._running()
        process.send_signal(number)
        process.wait(PATIENCE)
        self._process = None
        wait_until(lambda: not processes_in(self.folder), "the server's processes have not ended")

    def _initialise(self) -> None:
        # What mariadb-install-db does, without its help texts and without the programs of a client package.
        for folder in (self.folder, self.data, self.data / "mysql", self.folder / "tmp"):
            folder.mkdir(exist_ok=True)
            os.chown(folder, self._account.uid, self._account.gid)
        (self.folder / "accounts.sql").write_text(
            f"CREATE USER IF NOT EXISTS '{ADMIN}'@'{HOST}' IDENTIFIED BY '{PASSWORD}';\n"
            f"GRANT ALL PRIVILEGES ON *.* TO '{ADMIN}'@'{HOST}' WITH GRANT OPTION;\n"
        )
        script = b"USE mysql;\n" + b"\n".join((self._share / name).read_bytes() for name in _TABLES)
        quick = [f"--{name}={value}" for name, value in _QUICK.items()]
        made = subprocess.run(
            [*self._command(), "--bootstrap", *quick],
            input=script,
            cwd=self.folder,
            capture_output=True,
            check=False,
            **self._account.options,
        )
        if made.returncode:
            raise AssertionError(f"no system tables:\n{made.stderr.decode(errors='replace')}")

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            raise AssertionError("the server does not run")
        return self._process

    def _is_ready(self) -> bool:
        if self._running().poll() is not None:
            raise AssertionError(f"the server has not started:\n{self.log}")
        try:
            self.connect().close()
        except pymysql.MySQLError:
            return False
        return True


def find_server() -> tuple[Path, Path]:
    """Return the server's program and the folder of its messages and system tables.

    Raises:
        NoServerError: they are not there; nothing is skipped for it.
    """
    for name in ("mariadbd", "mysqld"):
        found = shutil.which(name) or shutil.which(name, path=os.pathsep.join(_PLACES))
        if found is None:
            continue
        program = Path(found).resolve()
        for share in _SHARES:
            folder = program.parent.parent / share
            if all((folder / table).is_file() for table in _TABLES):
                return program, folder
    raise NoServerError


def quoted(name: str) -> str:
    """Quote an identifier, written apart from the engine's own way."""
    return "`" + name.replace("`", "``") + "`"
