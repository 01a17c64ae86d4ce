"""Where a target is, and how connections to it are opened."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from worker_service.domain.errors import InvalidTargetError
from worker_service.operations.postgresql.prologue import looking_settings, state

# A server that vanished is noticed within two minutes also by a statement that lasts for hours, and by one that is
# sent to it on a connection that was kept.
_DEFAULTS = {
    "connect_timeout": "10",
    "tcp_user_timeout": "120000",
    "keepalives_idle": "60",
    "keepalives_interval": "10",
    "keepalives_count": "6",
}
_FORM = "postgresql://USER@HOST:PORT/DATABASE"
_INSTEAD = (
    "give the password by ~/.pgpass, PGPASSFILE, a service or PGPASSWORD, or with the URL in the worker's "
    "configuration file"
)

Conninfo = Mapping[str, Any]


def conninfo_of(url: str) -> Conninfo:
    """Return how to reach the database of a target's URL, in libpq's words; nothing is connected to.

    Raises:
        InvalidTargetError: it is no URL that PostgreSQL's own programs take, or it names no database.
    """
    _, _, rest = url.partition("://")
    try:
        conninfo = conninfo_to_dict(f"postgresql://{rest}")
    except psycopg.ProgrammingError:
        # What libpq says repeats parts of the URL, and a password may be one of them.
        raise InvalidTargetError(
            f"This is no URL that PostgreSQL takes: write {_FORM}, and {_INSTEAD}. "
            "Signs such as @ : / % # in a name are written as %40 %3A %2F %25 %23."
        ) from None
    named = conninfo.get("dbname") or conninfo.get("service")
    if not named and not any(os.environ.get(name) for name in ("PGDATABASE", "PGSERVICE")):
        raise InvalidTargetError(f"The target's URL names no database: write {_FORM}.")
    return conninfo


def connect(conninfo: Conninfo, application_name: str) -> psycopg.Connection[tuple[Any, ...]]:
    """Open a connection of one's own, which commits by itself; raise the driver's errors."""
    given = {**_DEFAULTS, **conninfo, "application_name": application_name, "client_encoding": "UTF8"}
    # Nothing is prepared: a statement of maintenance runs once.
    return psycopg.connect(**given, autocommit=True, prepare_threshold=None)


def beside(conninfo: Conninfo, connection: psycopg.Connection[tuple[Any, ...]]) -> Conninfo:
    """Return how to reach the very server that a connection leads to, where the URL names several."""
    info = connection.info
    pinned = {key: value for key, value in conninfo.items() if key != "hostaddr"}
    address = {"hostaddr": info.hostaddr} if info.hostaddr else {}
    return {**pinned, "host": info.host, "port": str(info.port), **address}


@contextmanager
def looking(conninfo: Conninfo) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """Lend a connection that only reads and waits for nobody long."""
    with connect(conninfo, "overhaul-look") as connection:
        state(connection, looking_settings(connection.info.server_version))
        yield connection
