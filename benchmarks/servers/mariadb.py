"""Overhaul beside mariadb-check, on copies of one MariaDB database."""

import shutil
import sys
from collections.abc import Callable
from functools import partial

from benchmarks.figures import Figure
from benchmarks.servers.contenders import overhaul_run, overhaul_serving, timed
from benchmarks.servers.size import Size
from tests.lodgings import HOST
from tests.mariadb import ADMIN, PASSWORD, MariadbServer

_PASSWORD = {"MYSQL_PWD": PASSWORD}
_REFERENCE = "mariadb-check --optimize"
_SMALL_ROWS, _BIG_ROWS = 200, 100_000
_DURABLE = {
    "innodb-flush-log-at-trx-commit": "1",
    "innodb-flush-method": "fsync",
    "innodb-doublewrite": "1",
    "innodb-buffer-pool-size": "1G",
    "innodb-log-file-size": "256M",
}


def measure(size: Size) -> list[Figure]:
    """Rebuild every table of fresh databases in turn, by each, and compare the tables' checksums."""
    program = shutil.which("mariadb-check") or shutil.which("mysqlcheck")
    if program is None:
        sys.exit("This needs mariadb-check. On Debian: apt-get install mariadb-client-core")
    contenders: dict[str, Callable[[MariadbServer, str], float]] = {
        _REFERENCE: partial(_mariadb_check, program),
        "overhaul run": _run,
        "overhaul create": _create,
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    same: list[float] = []
    with MariadbServer(_DURABLE) as server:
        for number in range(size.rounds):
            for name in contenders if number % 2 == 0 else reversed(contenders):
                database = server.create_database()
                _fill(server, database, size)
                before = _checksums(server, database)
                seconds[name].append(contenders[name](server, database))
                same.append(float(_checksums(server, database) == before))
                server.drop_database(database)
    return [
        *(Figure(name=name, values=values, unit="s") for name, values in seconds.items()),
        *(
            Figure(
                name=f"{name} / {_REFERENCE}",
                values=[o / t for o, t in zip(seconds[name], seconds[_REFERENCE], strict=True)],
                unit="x",
                aim="at most 1.1",
            )
            for name in ("overhaul run", "overhaul create")
        ),
        Figure(name="checksums that stayed the same, of 1", values=same, unit="", aim="1"),
    ]


def _mariadb_check(program: str, server: MariadbServer, database: str) -> float:
    address = [f"--host={HOST}", f"--port={server.port}", f"--user={ADMIN}", "--skip-ssl"]
    return timed([program, "--optimize", *address, database], given=_PASSWORD)


def _run(server: MariadbServer, database: str) -> float:
    """Start a manager and a worker, and rebuild by them, two tables at once."""
    return timed(overhaul_run(_url(server, database), "--operation", "vacuum"), given=_PASSWORD)


def _create(server: MariadbServer, database: str) -> float:
    """Do so by a manager and a worker that run already."""
    with overhaul_serving(server.url(database), "--operation", "vacuum", "--scope", "table") as command:
        return timed(command)


def _url(server: MariadbServer, database: str) -> str:
    return f"mariadb://{ADMIN}@{HOST}:{server.port}/{database}"


def _fill(server: MariadbServer, database: str, size: Size) -> None:
    numbers = "SELECT seq, seq % 7, repeat('v', 90) FROM seq_1_to_{}"
    statements = []
    for name, rows in [
        ("big", _BIG_ROWS * size.scale),
        *((f"small_{n}", _SMALL_ROWS) for n in range(size.tables)),
    ]:
        statements += [
            f"CREATE TABLE {name} (id int PRIMARY KEY, a int, v varchar(100), KEY (a))",
            f"INSERT INTO {name} {numbers.format(rows)}",
            f"DELETE FROM {name} WHERE id % 5 = 0",
        ]
    server.run(*statements, database=database)


def _checksums(server: MariadbServer, database: str) -> list[tuple[object, ...]]:
    tables = ", ".join(str(row[0]) for row in server.run("SHOW TABLES", database=database))
    return server.run(f"CHECKSUM TABLE {tables}", database=database)
