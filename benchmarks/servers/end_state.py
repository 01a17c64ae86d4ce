"""What a maintained database looks like to somebody who only reads its catalogues."""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tests.postgres import PostgresServer

_TABLES = """
SELECT s.relname, s.n_dead_tup, c.relallvisible >= c.relpages - 1, c.relpages,
       s.last_vacuum IS NOT NULL, s.last_analyze IS NOT NULL
FROM pg_stat_user_tables AS s JOIN pg_class AS c ON c.oid = s.relid WHERE c.relkind = 'r'
"""
_STATISTICS = "SELECT DISTINCT tablename FROM pg_stats WHERE schemaname = 'public'"
_FILES = """
SELECT c.relname, pg_relation_filenode(c.oid) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind = 'i' AND n.nspname = 'public'
"""
_LEFTOVERS = "SELECT count(*) FROM pg_class WHERE relname ~ '_cc(new|old)[0-9]*$'"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndState:
    """Tables by what the server says of each, those with statistics, index files, and whether all is sound."""

    tables: Mapping[str, tuple[object, ...]]
    statistics: frozenset[str]
    files: Mapping[str, int]
    leftovers: int
    sound: bool


def read(server: PostgresServer, url: str) -> EndState:
    """Read the state; what pg_amcheck complains of is not sound."""
    with psycopg.connect(url, autocommit=True) as connection:
        tables = {row[0]: row[1:] for row in connection.execute(_TABLES)}
        statistics = frozenset(row[0] for row in connection.execute(_STATISTICS))
        files = {name: int(file) for name, file in connection.execute(_FILES)}
        [left] = connection.execute(_LEFTOVERS).fetchone() or (0,)
        connection.execute("CREATE EXTENSION IF NOT EXISTS amcheck")
    check: list[str | Path] = [server.program("pg_amcheck"), "--jobs", "2", url]
    checked = subprocess.run(check, check=False, capture_output=True, text=True)
    return EndState(
        tables=tables,
        statistics=statistics,
        files=files,
        leftovers=left,
        sound=checked.returncode == 0 and not checked.stdout,
    )


def differences(before: EndState, reference: EndState, ours: EndState) -> list[str]:
    """Tell where ours is not what the reference is; statistics of more tables than it has are no difference."""
    found = [name for name, state in reference.tables.items() if ours.tables.get(name) != state]
    found += [f"statistics of {name}" for name in sorted(reference.statistics - ours.statistics)]
    found += [
        f"file of {name}"
        for name, file in before.files.items()
        if (reference.files.get(name) != file) != (ours.files.get(name) != file)
    ]
    found += ["leftovers"] * (ours.leftovers > 0) + ["not sound"] * (not ours.sound)
    return found
