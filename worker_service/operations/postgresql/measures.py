from collections.abc import Iterable
from contextlib import suppress

import psycopg

from worker_service.operations.postgresql.catalog import MEANT, Reader, Table
from worker_service.operations.postgresql.names import Name

_DATABASE = "SELECT pg_database_size(current_database())"
# To measure the files of a relation the server locks it against being dropped: nobody is waited for.
_SIZE = f"""
WITH meant AS (SELECT unnest({MEANT}) AS oid),
locked AS (
  SELECT relation FROM pg_locks WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock'
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))
SELECT CASE WHEN NOT EXISTS (
  SELECT FROM locked LEFT JOIN pg_index AS i ON i.indexrelid = locked.relation
  WHERE locked.relation IN (SELECT oid FROM meant) OR i.indrelid IN (SELECT oid FROM meant))
THEN (SELECT sum(pg_total_relation_size(oid))::float8 FROM meant) END
"""  # noqa: S608 - constants


def size_measures(read: Reader) -> dict[str, float]:
    """Measure the database's files; nothing where the role may not ask."""
    with suppress(psycopg.errors.InsufficientPrivilege):
        return {"file_bytes": float(read(_DATABASE)[0][0])}
    return {}


def whole_measures(read: Reader, subject: Name | None) -> dict[str, float]:
    """Measure the database's files for an operation on all of it: that takes longer than many a table's VACUUM."""
    return size_measures(read) if subject is None else {}


def file_measures(read: Reader, subject: Name | None) -> dict[str, float]:
    """Measure the files of what an operation is done to: of the database, or of a table or index with its parts.

    A table's ``size_bytes`` are those of its indexes and long values too. There is nothing where somebody else
    holds the object alone, who would have to be waited for, or where it is gone.
    """
    if subject is None:
        return size_measures(read)
    size = read(_SIZE, subject.schema, subject.name)[0][0]
    return {} if size is None else {"size_bytes": float(size)}


def table_measures(tables: Iterable[Table]) -> dict[str, float]:
    """Sum up what the catalogues say of the tables.

    ``pages`` and ``all_visible_pages`` are as of the last VACUUM or ANALYZE; ``live_rows`` and ``dead_rows``
    are the server's running estimates; ``oldest_xid_age`` is the largest of all tables.
    """
    plain = [table for table in tables if not table.is_parent]
    return {
        "tables": float(len(plain)),
        "pages": float(sum(table.pages for table in plain)),
        "all_visible_pages": float(sum(table.all_visible for table in plain)),
        "live_rows": float(sum(table.live_rows for table in plain)),
        "dead_rows": float(sum(table.dead_rows for table in plain)),
        "oldest_xid_age": float(max((table.age for table in plain), default=0)),
    }
