"""A store on PostgreSQL in which many children have ended: one parent job ends in earnest, its rows are copied."""

import asyncio

import psycopg
from psycopg import sql

from benchmarks.finished import LEFT, end_one
from manager_service.app.system import SystemClock, SystemIds
from manager_service.domain.fleet import Timing
from manager_service.store import open_store

_TARGETS = [f"old{number:04d}" for number in range(5_000)]
_CHILDREN = 2 * len(_TARGETS)
# Ids begin with the time in units of 65 seconds; so far apart, those of two copies never meet.
_OLDER = sql.SQL(
    "lpad(to_hex(('x' || left({name}, 8))::bit(32)::bigint - copy * 16), 8, '0') || substr({name}, 9)"
)


def fill(url: str, children: int) -> None:
    """Let so many children have ended in a store, in parent jobs of 10,000."""
    asyncio.run(_end_one(url))
    with psycopg.connect(url, autocommit=True) as connection:
        for table, ids in LEFT.items():
            found = connection.execute(
                "SELECT column_name FROM information_schema.columns WHERE table_name = %s", [table]
            )
            columns = [name for (name,) in found]
            values = [_OLDER.format(name=sql.Identifier(c)) if c in ids else sql.Identifier(c) for c in columns]
            copied = sql.SQL(
                "INSERT INTO {table} ({columns}) SELECT {values} "
                "FROM {table}, generate_series({copies}, 1, -1) AS copy"
            ).format(
                table=sql.Identifier(table),
                columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
                values=sql.SQL(", ").join(values),
                copies=sql.Literal(children // _CHILDREN - 1),
            )
            connection.execute(copied)
        connection.execute("VACUUM ANALYZE")


async def _end_one(url: str) -> None:
    store = open_store(url, clock=SystemClock(), ids=SystemIds(), timing=Timing(), synchronous="normal")
    await end_one(store, _TARGETS)
