"""What autovacuum has left to do in the tables that are written again and again."""

from collections.abc import Mapping
from dataclasses import dataclass

import psycopg

TABLES = ("queue", "leases", "parent_counts")
_LOOK = """
SELECT relname, n_dead_tup, n_live_tup, autovacuum_count, pg_relation_size(relid)
FROM pg_stat_user_tables WHERE relname = ANY (%s)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class HotTable:
    """A table's dead and live rows as the statistics have them, how often it was vacuumed, and its bytes."""

    dead: int
    live: int
    vacuums: int
    size: int


def look(url: str) -> Mapping[str, HotTable]:
    """Return the state of each hot table."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(_LOOK, [list(TABLES)]).fetchall()
    return {
        name: HotTable(dead=dead, live=live, vacuums=vacuums, size=size)
        for name, dead, live, vacuums, size in rows
    }
