"""`overhaul run` beside mariadb-check, on copies of one MariaDB database."""

import shutil
import sys

from benchmarks.figures import Figure
from benchmarks.servers.contenders import overhaul_run, timed
from benchmarks.servers.size import Size
from tests.lodgings import HOST
from tests.mariadb import ADMIN, PASSWORD, MariadbServer

_SMALL_ROWS, _BIG_ROWS = 200, 10_000
_DURABLE = {
    "innodb-flush-log-at-trx-commit": "1",
    "innodb-flush-method": "fsync",
    "innodb-doublewrite": "1",
    "innodb-buffer-pool-size": "1G",
    "innodb-log-file-size": "256M",
}


def measure(size: Size) -> list[Figure]:
    """Rebuild every table of fresh databases in turn, by both, and compare the tables' checksums."""
    program = shutil.which("mariadb-check") or shutil.which("mysqlcheck")
    if program is None:
        sys.exit("This needs mariadb-check. On Debian: apt-get install mariadb-client-core")
    theirs, ours, same = [], [], []
    with MariadbServer(_DURABLE) as server:
        for number in range(size.rounds):
            both = [_mariadb_check, _overhaul]
            seconds, sums = {}, {}
            for contender in both if number % 2 == 0 else reversed(both):
                database = server.create_database()
                _fill(server, database, size)
                before = _checksums(server, database)
                seconds[contender] = contender(server, database, program)
                sums[contender] = _checksums(server, database) == before
                server.drop_database(database)
            theirs.append(seconds[_mariadb_check])
            ours.append(seconds[_overhaul])
            same.append(float(all(sums.values())))
    return [
        Figure(name="mariadb-check --optimize", values=theirs, unit="s"),
        Figure(name="overhaul run --operation vacuum", values=ours, unit="s"),
        Figure(
            name="overhaul run / mariadb-check",
            values=[o / t for o, t in zip(ours, theirs, strict=True)],
            unit="x",
            aim="at most 1.1",
        ),
        Figure(name="checksums that stayed the same, of 1", values=same, unit="", aim="1"),
    ]


def _mariadb_check(server: MariadbServer, database: str, program: str) -> float:
    address = [f"--host={HOST}", f"--port={server.port}", f"--user={ADMIN}", "--skip-ssl"]
    return timed([program, "--optimize", *address, database], given={"MYSQL_PWD": PASSWORD})


def _overhaul(server: MariadbServer, database: str, _: str) -> float:
    url = f"mariadb://{ADMIN}@{HOST}:{server.port}/{database}"
    return timed(overhaul_run(url, "--operation", "vacuum"), given={"MYSQL_PWD": PASSWORD})


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
