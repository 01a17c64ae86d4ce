"""Databases in a real MariaDB, and what they are found to hold by reading past the engine."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from tests.integration.operations.doubles import RecordingControl
from tests.lodgings import HOST
from tests.mariadb import MariadbServer, Row, quoted
from worker_service.domain.operation import Operation
from worker_service.domain.outcome import Failure, Outcome, Result
from worker_service.domain.target import Target
from worker_service.operations.mariadb import MariadbEngine
from worker_service.operations.mariadb.worker import MariadbWorker

ROLE, ROLE_PASSWORD = "keeper", "keeper-of-tests"


@dataclass
class Database:
    """One database of the tests' server."""

    server: MariadbServer
    name: str

    def run(self, *statements: str) -> list[Row]:
        return self.server.run(*statements, database=self.name)

    def target(self, url: str = "", identity: str | None = None) -> Target:
        return Target(name="app", url=url or self.server.url(self.name), engine="mariadb", identity=identity)

    def worker(self, control: RecordingControl | None = None, url: str = "") -> MariadbWorker:
        return MariadbEngine().worker(self.target(url), control or RecordingControl())

    def maintain(
        self,
        name: str,
        control: RecordingControl | None = None,
        *,
        url: str = "",
        table: str | None = None,
        child: str = "",
        attempt: int = 1,
        timeout: timedelta | None = None,
        **options: object,
    ) -> Result:
        texts = {key: str(value) for key, value in options.items()}
        wanted = Operation(
            name=name,
            target="app",
            object=table,
            options=texts,
            child_job_id=child,
            attempt=attempt,
            timeout=timeout,
        )
        return self.worker(control, url).execute(wanted)

    def table(self, name: str, rows: int = 0, kept: int = 1, engine: str = "InnoDB") -> str:
        """Make a table in which every ``kept``-th of its rows is left."""
        self.run(
            f"CREATE TABLE {quoted(name)} (id INT PRIMARY KEY, text VARCHAR(200), KEY (text)) ENGINE={engine}",
            f"INSERT INTO {quoted(name)} SELECT seq, REPEAT(MD5(seq), 5) FROM seq_1_to_{max(rows, 1)}",
            f"DELETE FROM {quoted(name)} WHERE id % {kept} <> 0",
        )
        return name

    def role(self, *grants: str) -> str:
        """Make a role that may do this and no more, and return the database's URL for it."""
        account = f"'{ROLE}'@'{HOST}'"
        self.server.run(f"CREATE OR REPLACE USER {account} IDENTIFIED BY '{ROLE_PASSWORD}'")
        for grant in grants:
            what, _, where = grant.partition(" ON ")
            self.server.run(f"GRANT {what} ON {where or quoted(self.name) + '.*'} TO {account}")
        return self.server.url(self.name, user=ROLE, password=ROLE_PASSWORD)

    def file_bytes(self, name: str) -> int:
        """Ask the file system for the size of a table whose name is spelt there as it is."""
        return sum(
            path.stat().st_size for path in self.server.data.glob(f"{self.name}/{name}.*") if path.suffix != ".frm"
        )

    def spaces(self) -> dict[str, int]:
        """Return the number of each table's file, which a rebuild changes."""
        sql = "SELECT NAME, SPACE FROM information_schema.INNODB_SYS_TABLES WHERE NAME LIKE %s"
        with self.server.connect() as connection, connection.cursor() as cursor:
            cursor.execute(sql, (f"{self.name}/%",))
            return {str(name).partition("/")[2]: int(space) for name, space in cursor.fetchall()}

    def checksums(self, *names: str) -> list[Row]:
        return self.run(f"CHECKSUM TABLE {', '.join(map(quoted, names))}")

    @contextmanager
    def reader_of(self, name: str) -> Iterator[None]:
        """Keep a transaction open that has read a table, and so keeps others from rebuilding it."""
        with self.server.connect(self.name) as connection, connection.cursor() as cursor:
            connection.begin()
            cursor.execute(f"SELECT COUNT(*) FROM {quoted(name)}")
            yield
            connection.rollback()


def failure(result: Result) -> Failure:
    assert result.outcome is Outcome.FAILED
    assert result.failure is not None
    assert result.failure.message.endswith(".")
    return result.failure


def logged(control: RecordingControl) -> str:
    return "\n".join(line for _, line in control.lines)


def options(**texts: Any) -> dict[str, str]:
    return {name: str(value) for name, value in texts.items()}
