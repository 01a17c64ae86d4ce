"""The job store; ``open_store`` is its only door."""

from typing import Any

from manager_service.domain.errors import InvalidStoreError
from manager_service.domain.fleet import Timing
from manager_service.domain.ports import Clock, IdSource, JobStore

__all__ = ["migrate_store", "open_store"]


def open_store(
    url: str, *, clock: Clock, ids: IdSource, timing: Timing, synchronous: str = "full", pooled: bool = False
) -> JobStore:
    """Open the job store that a URL names, making or migrating it as needed.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute.db`` or ``postgresql://USER@HOST:PORT/DATABASE``.
        clock: where time comes from on SQLite; PostgreSQL has its own.
        ids: where ids and chance come from.
        timing: the spans that leases live by.
        synchronous: ``full``: what was answered survives a power failure; ``normal``: the last moments may not.
            On PostgreSQL the server's own setting says that.
        pooled: whether a connection pooler stands before PostgreSQL.

    Raises:
        InvalidStoreError: the URL is wrong, what it names is no job store of this release, or nobody is let in.
        StoreInUseError: another manager has the store open.
        StoreUnavailableError: the database cannot be reached.
    """
    scheme = url.partition(":")[0]
    if scheme == "sqlite":
        from manager_service.store.embedded import open_embedded  # noqa: PLC0415 -- a store loads its own driver only

        return open_embedded(url, clock=clock, ids=ids, timing=timing, synchronous=synchronous)
    if scheme.partition("+")[0] == "postgresql":
        replicated: JobStore = _driver().open_replicated(url, ids=ids, timing=timing, pooled=pooled)
        return replicated
    raise InvalidStoreError(
        f"{url!r} is no job store's URL; write sqlite:///FILE or postgresql://USER@HOST/DATABASE"
    )


def migrate_store(url: str) -> str:
    """Bring a PostgreSQL job store to this release's schema, and return the schema that it had before.

    An SQLite store is migrated when it is opened.

    Raises:
        InvalidStoreError: the URL is wrong, the database is not to be touched, or the role may not do that.
        StoreUnavailableError: the database cannot be reached.
    """
    if not url.startswith("postgresql"):
        why = "an SQLite store is migrated when it is opened"
        if not url.startswith("sqlite"):
            why = "only a store on PostgreSQL is migrated"
        raise InvalidStoreError(f"{why}; write postgresql://USER@HOST/DATABASE")
    migrated: str = _driver().migrate(url)
    return migrated


def _driver() -> Any:
    """Return what opens stores on PostgreSQL, whose driver is an extra."""
    try:
        from manager_service.store import replicated  # noqa: PLC0415 -- a store loads its own driver only
    except ModuleNotFoundError as error:
        if error.name != "psycopg":
            raise
        raise InvalidStoreError(
            "a store on PostgreSQL needs its driver: pip install 'overhaul[postgresql]'"
        ) from error
    return replicated
