"""PostgreSQL: the connections, and the errors of its driver. Its own SQL is in `postgresql_dialect`."""

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import create_engine
from sqlalchemy.engine import Engine
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from manager_service.domain.errors import InvalidStoreError, StoreUnavailableError
from manager_service.store.errors import ConflictError, ConnectionLostError
from manager_service.store.postgresql_dialect import RowsText
from manager_service.store.statements import Statement

_SETTINGS: Final = {
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
_SET_LOCAL: Final = "SELECT set_config(key, value, true) FROM json_each_text(CAST($1 AS JSON))"
# A server that vanished is noticed in seconds.
_DEFAULTS: Final = {
    "application_name": "overhaul-manager",
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
# Another transaction was in the way, and this one is to be run again.
_CONFLICTS: Final = (
    errors.DeadlockDetected,
    errors.SerializationFailure,
    errors.LockNotAvailable,
    errors.UniqueViolation,
)
# The server cannot do now what it could before: it ends, restarts, is a standby, is full, or lets nobody in.
# A manager whose process was stopped within a transaction finds that the server has ended its session.
_UNAVAILABLE: Final = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    errors.ReadOnlySqlTransaction,
    errors.IdleInTransactionSessionTimeout,
)
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
    given: dict[str, Any] = {**_DEFAULTS, **conninfo, "autocommit": True}
    if options:
        given["options"] = f"{conninfo.get('options', '')} {options}".strip()
    return psycopg.connect(**given)


class PostgresConnection:
    """A connection that is opened when it is needed, whose transactions are begun and ended by name."""

    def __init__(self, conninfo: dict[str, Any], dialect: Dialect, *, pooled: bool = False) -> None:
        self._conninfo = conninfo
        self._dialect = dialect
        self._pooled = pooled
        self._raw: psycopg.Connection[Any] | None = None
        self._cursor: Any = None
        self._many: dict[Statement, RowsText] = {}
        self._changed = 0

    @property
    def raw(self) -> psycopg.Connection[Any]:
        """The driver's connection, opened if it is not.

        Raises:
            ConnectionLostError: the database cannot be reached.
        """
        if self._raw is None or self._raw.closed:
            with translated:
                self._raw = self._open()
            self._cursor = psycopg.RawCursor(self._raw)
        return self._raw

    def _open(self) -> psycopg.Connection[Any]:
        options = "" if self._pooled else " ".join(f"-c {name}={value}" for name, value in _SETTINGS.items())
        raw = open_connection(self._conninfo, options=options)
        # A pooler hands each transaction to another server process, which knows no statement of the last one.
        raw.prepare_threshold = None if self._pooled else 0
        raw.prepared_max = 1_000
        return raw

    def rows(self, statement: Statement, **given: Any) -> list[Any]:
        """Run a statement and return its rows."""
        text = statement.text(self._dialect, given)
        with translated:
            self._execute(text.sql, text.values(given))
            return list(map(text.row, self._cursor.fetchall()))

    def batches(self, statement: Statement, size: int, **given: Any) -> Generator[list[Any]]:
        """Run a statement and return its rows, ``size`` at first and ever more."""
        found = self.rows(statement, **given)
        while found:
            yield found[:size]
            found, size = found[size:], 2 * size

    def run(self, statement: Statement, **given: Any) -> int:
        """Run a statement and return how many rows it changed."""
        text = statement.text(self._dialect, given)
        with translated:
            self._execute(text.sql, text.values(given))
        return self._count()

    def run_many(self, statement: Statement, many: Sequence[dict[str, Any]]) -> int:
        """Run a statement without lists once for each set of values; return how many rows it changed in all."""
        if not many:
            return 0
        if len(many) == 1:
            return self.run(statement, **many[0])
        text = self._many.get(statement)
        if text is None:
            text = self._many[statement] = RowsText(statement.core, self._dialect)
        with translated:
            self._execute(text.sql, [json.dumps(many).replace("\\u0000", "\\ufffd")])
        return self._count()

    def _count(self) -> int:
        changed: int = max(0, self._cursor.rowcount)
        self._changed += changed
        return changed

    def changes(self) -> int:
        """Return how many rows were changed since the connection was made."""
        return self._changed

    def begin(self) -> None:
        """Begin a transaction; one that could not be undone before is undone now."""
        self.rollback()
        self.command("BEGIN")
        self._set_up()

    def commit(self) -> None:
        """Make what was written last."""
        self.command("COMMIT")

    def rollback(self) -> None:
        """Undo what was written; a connection on which that fails is given up, which undoes it as well."""
        raw = self._raw
        if raw is None or raw.closed or raw.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
            return
        try:
            raw.execute("ROLLBACK")
        except psycopg.Error:
            self.close()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let every statement of the block see the same state."""
        self.command("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        self._set_up()
        try:
            yield
            # Not undone: the driver forgets its prepared statements with a rollback.
            self.commit()
        finally:
            self.rollback()

    def _set_up(self) -> None:
        """Set behind a pooler for each transaction what is set for the connection otherwise."""
        if self._pooled:
            self.command(_SET_LOCAL, [json.dumps(_SETTINGS)])

    def command(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """Run a statement that is not of the store's tables, and return its rows if it has some."""
        with translated:
            _ = self.raw
            self._execute(sql, values)
            return self._cursor.fetchall() if self._cursor.description else []

    def close(self) -> None:
        """Close the connection; it is opened again when it is needed."""
        if self._raw is not None:
            with suppress(psycopg.Error):
                self._raw.close()
            self._raw = None

    def _execute(self, sql: str, values: Sequence[Any]) -> None:
        try:
            self._cursor.execute(sql, values)
        except psycopg.DataError:
            # PostgreSQL has no text with NUL characters; nothing was sent yet.
            if not any(isinstance(value, str) and "\0" in value for value in values):
                raise
            self._cursor.execute(sql, [v.replace("\0", "\ufffd") if isinstance(v, str) else v for v in values])


class _Translated:
    """Turns the driver's errors about the server and its locks into the store's own.

    A class, because it surrounds every statement: a generator costs seven times as much.
    """

    def __enter__(self) -> None:
        """Let the block run."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if not isinstance(error, psycopg.Error):
            return
        why = str(error).strip().partition("\n")[0]
        if isinstance(error, _CONFLICTS):
            raise ConflictError(why) from error
        if isinstance(
            error, errors.DiskFull | errors.OutOfMemory | errors.QueryCanceled | errors.InsufficientPrivilege
        ):
            raise StoreUnavailableError(why) from error
        if isinstance(error, _UNAVAILABLE):
            raise ConnectionLostError(why) from error


translated = _Translated()


def described(conninfo: dict[str, Any]) -> str:
    """Return what a database is called in messages, which is not its password."""
    return f"the database {conninfo['dbname']} on {conninfo.get('host', 'this host')}"


@contextmanager
def administered(conninfo: dict[str, Any]) -> Iterator[Engine]:
    """Hand out an engine for what is done to the tables themselves.

    Raises:
        StoreUnavailableError: the database cannot be reached, or the role may not do that.
    """
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(**{**_DEFAULTS, **conninfo}), poolclass=NullPool
    )
    try:
        yield engine
    except DBAPIError as error:
        if not isinstance(error.orig, (*_UNAVAILABLE, errors.InsufficientPrivilege)):
            raise
        raise StoreUnavailableError(str(error.orig).strip().partition("\n")[0]) from error
