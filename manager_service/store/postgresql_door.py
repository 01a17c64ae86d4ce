"""How connections to PostgreSQL are opened, and with which settings."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import create_engine
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from manager_service.domain.errors import InvalidStoreError, StoreUnavailableError
from manager_service.store.errors import ConnectionLostError
from manager_service.store.postgresql_errors import UNAVAILABLE, is_refusal, translated

SETTINGS: Final = {
    # Rows that were just written have no statistics, so a planner that looks at them would sort all heads for a
    # claim. The statements are written in the order in which their tables are to be read, along an index each.
    "plan_cache_mode": "force_generic_plan",
    "join_collapse_limit": "1",
    "from_collapse_limit": "1",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_material": "off",
    "enable_memoize": "off",
    "enable_bitmapscan": "off",
    "jit": "off",
    "cursor_tuple_fraction": "0.001",
    # Nobody waits for ever for what another manager holds, nor holds it for ever where its process is stopped.
    "lock_timeout": "5s",
    "statement_timeout": "60s",
    "idle_in_transaction_session_timeout": "10s",
}
# A server that vanished is noticed in seconds.
_DEFAULTS: Final = {
    "application_name": "overhaul-manager",
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
# So long nobody knocks again where nobody answered, in seconds.
_PAUSE: Final = 0.5
_FORM = "postgresql://USER@HOST:PORT/DATABASE"


def parse(url: str) -> dict[str, Any]:
    """Return how to reach the database that a store's URL names, in the driver's words.

    Raises:
        InvalidStoreError: it is none of the URLs that PostgreSQL's own programs take, or names no database.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in ("postgresql", "postgresql+psycopg"):
        raise InvalidStoreError(f"{scheme} is no driver of a job store; write {_FORM}")
    try:
        conninfo = conninfo_to_dict(f"postgresql://{rest}")
    except psycopg.ProgrammingError as error:
        raise InvalidStoreError(f"the store's URL is none that PostgreSQL takes; write {_FORM}") from error
    if not conninfo.get("dbname"):
        raise InvalidStoreError(f"the store's URL names no database; write {_FORM}")
    return conninfo


def open_connection(conninfo: dict[str, Any], *, options: str = "") -> psycopg.Connection[Any]:
    """Open a connection that commits by itself; raise the driver's errors."""
    given: dict[str, Any] = {**_DEFAULTS, **conninfo, "autocommit": True, "client_encoding": "UTF8"}
    if options:
        given["options"] = f"{conninfo.get('options', '')} {options}".strip()
    return psycopg.connect(**given)


class Door:
    """Opens the connections of one manager; where nobody answered, it does not knock for every call."""

    def __init__(self, conninfo: dict[str, Any], *, pooled: bool = False) -> None:
        self._conninfo = conninfo
        self.pooled = pooled
        self._lock = threading.Lock()
        self._again_at = 0.0
        self._why = ""

    def open(self) -> psycopg.Connection[Any]:
        """Open a connection with the store's settings.

        Raises:
            ConnectionLostError: the database cannot be reached, or could not a moment ago.
        """
        with self._lock:
            if time.monotonic() < self._again_at:
                raise ConnectionLostError(self._why)
            try:
                with translated:
                    return self._open()
            except ConnectionLostError as error:
                self._again_at, self._why = time.monotonic() + _PAUSE, error.why
                raise

    def _open(self) -> psycopg.Connection[Any]:
        options = "" if self.pooled else " ".join(f"-c {name}={value}" for name, value in SETTINGS.items())
        return open_connection(self._conninfo, options=options)


def described(conninfo: dict[str, Any]) -> str:
    """Return what a database is called in messages, which is not its password."""
    return f"the database {conninfo['dbname']} on {conninfo.get('host', 'this host')}"


@contextmanager
def administered(conninfo: dict[str, Any]) -> Iterator[Engine]:
    """Hand out an engine for what is done to the tables themselves.

    Raises:
        InvalidStoreError: the server does not let this role in, or it may not do that.
        StoreUnavailableError: the database cannot be reached.
    """
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(**{**_DEFAULTS, **conninfo}), poolclass=NullPool
    )
    try:
        yield engine
    except DBAPIError as error:
        why = str(error.orig).strip().partition("\n")[0]
        if is_refusal(error.orig):
            raise InvalidStoreError(
                f"{described(conninfo)} refuses this program: {why}; check the role of the store's URL, its "
                "password and its rights"
            ) from error
        if not isinstance(error.orig, UNAVAILABLE):
            raise
        raise StoreUnavailableError(why) from error
