"""PostgreSQL: the connections, and the errors of its driver. Its own SQL is in `postgresql_dialect`."""

import json
import select
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
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
from manager_service.store.errors import ConflictError, ConnectionLostError, HeldUpError
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
    errors.UniqueViolation,
)
# The server goes on and so does the connection, but this cannot be done now: it is full, the role has lost its
# rights (what it may not look into is not there for it), or it takes too long.
_REFUSED: Final = (
    errors.DiskFull,
    errors.OutOfMemory,
    errors.QueryCanceled,
    errors.InsufficientPrivilege,
    errors.UndefinedTable,
)
# The server cannot do now what it could before: it ends, restarts, is a standby, is full, or lets nobody in.
# A manager whose process was stopped within a transaction finds that the server has ended its session.
_UNAVAILABLE: Final = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    errors.ReadOnlySqlTransaction,
    errors.IdleInTransactionSessionTimeout,
)
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
    given: dict[str, Any] = {**_DEFAULTS, **conninfo, "autocommit": True}
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
        options = "" if self.pooled else " ".join(f"-c {name}={value}" for name, value in _SETTINGS.items())
        raw = open_connection(self._conninfo, options=options)
        # A pooler hands each transaction to another server process, which knows no statement of the last one.
        raw.prepare_threshold = None if self.pooled else 0
        raw.prepared_max = 1_000
        return raw


class PostgresConnection:
    """A connection that is opened when it is needed, whose transactions are begun and ended by name.

    A transaction is one pipeline: what is posted is sent together with the next statement whose rows are read.
    """

    def __init__(self, door: Door, dialect: Dialect) -> None:
        self._door = door
        self._dialect = dialect
        self._raw: psycopg.Connection[Any] | None = None
        self._pipelined: AbstractContextManager[psycopg.Pipeline] | None = None
        self._pipeline: Any = None
        # What is posted has no reader: its results must not be taken for those of the statement that has one.
        self._reader: Any = None
        self._poster: Any = None
        self._given_up = False
        self._many: dict[Statement, RowsText] = {}
        self._changed = 0
        self._translated = _Translated(self._give_up)

    def _open(self) -> psycopg.Connection[Any]:
        """Return the driver's connection, opened if it is not."""
        if self._raw is None or self._raw.closed:
            self._raw = self._door.open()
            self._reader, self._poster = psycopg.RawCursor(self._raw), psycopg.RawCursor(self._raw)
        return self._raw

    def rows(self, statement: Statement, **given: Any) -> list[Any]:
        """Run a statement and return its rows."""
        text = statement.text(self._dialect, given)
        with self._translated:
            return list(map(text.row, self._read(text.sql, text.values(given))))

    def batches(self, statement: Statement, size: int, **given: Any) -> Generator[list[Any]]:
        """Run a statement for its first rows, and for all if more are asked for; then the first come again."""
        text = statement.text(self._dialect, given)
        limit = 2 * size + 2
        with self._translated:
            found = list(map(text.row, self._read(f"{text.sql} LIMIT {limit}", text.values(given))))
        yield found
        if len(found) == limit:
            yield self.rows(statement, **given)

    def run(self, statement: Statement, **given: Any) -> int:
        """Run a statement and return how many rows it changed."""
        text = statement.text(self._dialect, given)
        return self._run(text.sql, text.values(given))

    def run_many(self, statement: Statement, many: Sequence[dict[str, Any]]) -> int:
        """Run a statement without lists once for each set of values; return how many rows it changed in all."""
        return self._run(*self._for_many(statement, many)) if many else 0

    def post(self, statement: Statement, **given: Any) -> None:
        """Run a statement together with the next whose rows are read."""
        text = statement.text(self._dialect, given)
        self._post(text.sql, text.values(given))

    def post_many(self, statement: Statement, many: Sequence[dict[str, Any]]) -> None:
        """Run a statement for many sets of values together with the next whose rows are read."""
        if many:
            self._post(*self._for_many(statement, many))

    def names(self, sql: str, names: Sequence[str]) -> list[str]:
        """Run a statement about names and return the names that it returns."""
        with self._translated:
            return [row[0] for row in self._read(sql, [json.dumps(names)])]

    def post_names(self, sql: str, names: Sequence[str]) -> None:
        """Run a statement about names together with the next whose rows are read."""
        with self._translated:
            self._poster.execute(sql, [json.dumps(names)])

    def changes(self) -> int:
        """Return a number that rises with each statement that may have changed something."""
        return self._changed

    def begin(self) -> None:
        """Begin a transaction; one that could not be undone before is undone now."""
        self._begin("BEGIN")

    def commit(self) -> None:
        """Make what was written last; raise what was wrong with anything that was posted."""
        with self._translated:
            self._poster.execute("COMMIT")
            self._end_pipeline()

    def rollback(self) -> None:
        """Undo what was written; a connection on which that fails is given up, which undoes it as well."""
        raw = self._raw
        if raw is None:
            return
        if self._given_up:
            self.close()
            return
        with suppress(psycopg.Error):
            self._end_pipeline()
        if raw.closed or raw.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
            return
        try:
            raw.execute("ROLLBACK")
        except psycopg.Error:
            self.close()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let every statement of the block see the same state."""
        self._begin("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            yield
            # Not undone: the driver forgets its prepared statements with a rollback.
            self.commit()
        finally:
            self.rollback()

    def close(self) -> None:
        """Close the connection; it is opened again when it is needed."""
        self._pipelined, self._given_up = None, False
        if self._raw is not None:
            with suppress(psycopg.Error):
                self._raw.close()
            self._raw = None

    def _begin(self, sql: str) -> None:
        self.rollback()
        if self._raw is not None and _has_news(self._raw):
            # The server has closed the connection: nothing was asked, so nothing is lost, and another one will do.
            self.close()
        raw = self._open()
        with self._translated:
            self._pipelined = raw.pipeline()
            self._pipeline = self._pipelined.__enter__()
            self._poster.execute(sql)
            if self._door.pooled:
                # What is set for the connection otherwise.
                self._poster.execute(_SET_LOCAL, [json.dumps(_SETTINGS)])

    def _end_pipeline(self) -> None:
        pipelined, self._pipelined = self._pipelined, None
        if pipelined is not None:
            pipelined.__exit__(None, None, None)

    def _give_up(self) -> None:
        """Take another connection for the next transaction: this one leads to a standby by now."""
        self._given_up = True

    def _read(self, sql: str, values: Sequence[Any]) -> list[Any]:
        _execute(self._reader, sql, values)
        # Not only flushed: without a sync the server would wait for ever for a manager that stands still, and its
        # locks with it, for it does not count as idle within a transaction.
        self._pipeline.sync()
        rows: list[Any] = self._reader.fetchall()
        return rows

    def _for_many(self, statement: Statement, many: Sequence[dict[str, Any]]) -> tuple[str, Sequence[Any]]:
        if len(many) == 1:
            text = statement.text(self._dialect, many[0])
            return text.sql, text.values(many[0])
        rows = self._many.get(statement)
        if rows is None:
            rows = self._many[statement] = RowsText(statement.core, self._dialect)
        return rows.sql, [json.dumps(many).replace("\\u0000", "\\ufffd")]

    def _post(self, sql: str, values: Sequence[Any]) -> None:
        self._changed += 1
        with self._translated:
            _execute(self._poster, sql, values)

    def _run(self, sql: str, values: Sequence[Any]) -> int:
        with self._translated:
            _execute(self._reader, sql, values)
            self._pipeline.sync()
        changed: int = max(0, self._reader.rowcount)
        self._changed += changed
        return changed


def _has_news(raw: psycopg.Connection[Any]) -> bool:
    """Tell whether there is something to read, or nothing ever will."""
    if raw.closed:
        return False
    waiting = select.poll()
    waiting.register(raw.fileno(), select.POLLIN)
    return bool(waiting.poll(0))


def _execute(cursor: Any, sql: str, values: Sequence[Any]) -> None:
    try:
        cursor.execute(sql, values)
    except psycopg.DataError:
        # PostgreSQL has no text with NUL characters; nothing was sent yet.
        if not any(isinstance(value, str) and "\0" in value for value in values):
            raise
        cursor.execute(sql, [v.replace("\0", "\ufffd") if isinstance(v, str) else v for v in values])


class _Translated:
    """Turns the driver's errors about the server and its locks into the store's own.

    A class, because it surrounds every statement: a generator costs seven times as much.

    Args:
        met_a_standby: called when the server does not write any more.
    """

    def __init__(self, met_a_standby: Callable[[], None] = lambda: None) -> None:
        self._met_a_standby = met_a_standby

    def __enter__(self) -> None:
        """Let the block run."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if not isinstance(error, psycopg.Error):
            return
        why = str(error).strip().partition("\n")[0]
        if isinstance(error, errors.ReadOnlySqlTransaction):
            self._met_a_standby()
        if isinstance(error, _CONFLICTS):
            raise ConflictError(why) from error
        if isinstance(error, errors.LockNotAvailable):
            raise HeldUpError(why) from error
        if isinstance(error, _REFUSED):
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
