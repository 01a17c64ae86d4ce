"""A PostgreSQL database to maintain: pgbench's tables, many small ones, and a partitioned one."""

import subprocess
from pathlib import Path

import psycopg

from benchmarks.servers.size import Size
from tests.postgres import PostgresServer

# Every twentieth small table needs work where only some do.
_EVERY = 20


def make(server: PostgresServer, size: Size) -> str:
    """Make the database, much of which is dead, and return its URL; nobody is connected to it any more."""
    url = server.create_database()
    pgbench: list[str | Path] = [
        server.program("pgbench"),
        "--initialize",
        "--quiet",
        "--scale",
        str(size.scale),
        url,
    ]
    subprocess.run(pgbench, check=True, capture_output=True)
    with psycopg.connect(url, autocommit=True) as connection:
        for number in range(size.tables):
            connection.execute(f"CREATE TABLE small_{number} (id int PRIMARY KEY, a int, v text)".encode())
            connection.execute(f"CREATE INDEX ON small_{number} (a)".encode())
            connection.execute(
                f"INSERT INTO small_{number} SELECT g, g % 7, 'v' || g FROM generate_series(1, 200) AS g".encode()
            )
        connection.execute("CREATE TABLE parted (id int, day int) PARTITION BY RANGE (day)")
        for day in range(4):
            connection.execute(
                f"CREATE TABLE parted_{day} PARTITION OF parted FOR VALUES FROM ({day}) TO ({day + 1})".encode()
            )
        connection.execute("INSERT INTO parted SELECT g, g % 4 FROM generate_series(1, 1000) AS g")
        connection.execute("CREATE INDEX ON parted (id)")
        change(connection, every=1, tables=size.tables)
    return url


def make_well(server: PostgresServer, source: str) -> str:
    """Copy the database, maintain the copy, and return its URL."""
    url = server.create_database(source)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE)")
    return url


def spoil(url: str, size: Size) -> None:
    """Let one small table in twenty need maintenance; a copy knows no counters of its template."""
    with psycopg.connect(url, autocommit=True) as connection:
        change(connection, every=_EVERY, tables=size.tables, big=False)


def change(
    connection: psycopg.Connection[tuple[object, ...]], *, every: int, tables: int, big: bool = True
) -> None:
    """Leave dead rows behind: a fifth of each small table that is meant, and a tenth of the big one."""
    for number in range(0, tables, every):
        connection.execute(f"DELETE FROM small_{number} WHERE id % 5 = 0".encode())
    if big:
        connection.execute("UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid % 10 = 0")
    connection.execute("SELECT pg_stat_force_next_flush()")
