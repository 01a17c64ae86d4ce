from collections.abc import Iterable
from contextlib import suppress

import psycopg

from worker_service.operations.postgresql.catalog import Reader, Table
from worker_service.operations.postgresql.names import Name

_DATABASE = "SELECT pg_database_size(current_database())"


def size_measures(read: Reader) -> dict[str, float]:
    """Measure the database's files; nothing where the role may not ask."""
    with suppress(psycopg.errors.InsufficientPrivilege):
        return {"file_bytes": float(read(_DATABASE)[0][0])}
    return {}


def whole_measures(read: Reader, subject: Name | None) -> dict[str, float]:
    """Measure the database's files for an operation on all of it: that takes longer than many a table's VACUUM."""
    return size_measures(read) if subject is None else {}


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
