"""SQLite: the only place that knows the driver, the file and what its SQL has of its own."""

import fcntl
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from pysqlite3 import dbapi2
from sqlalchemy import create_engine
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import NullPool

from manager_service.domain.errors import InvalidStoreError, StoreInUseError, StoreUnavailableError
from manager_service.store.checkpoints import Checkpoints
from manager_service.store.statements import Among, Statement

# Before this version two connections could race when the write-ahead log was reset, and damage the file.
_LEAST_VERSION: Final = (3, 51, 3)
# Seconds to wait for another program that has the file locked; the event loop stands still meanwhile.
_PATIENCE: Final = 0.5
_LOG_KEPT: Final = 64 * 1024 * 1024
_PAGES_KEPT: Final = -32_000
# Errors of ours, not of the disk: they pass as they are.
_DEFECTS: Final = (dbapi2.IntegrityError, dbapi2.ProgrammingError)
_SQL_ERROR: Final = 1
_SYNCHRONOUS: Final = ("full", "normal")


class _Compiler(SQLiteCompiler):
    """Pins plans: a hint names the index, and tables are read in the order in which they are written.

    Tables that were just filled have no statistics, so the planner would sort all ready rows or begin a join at
    its wrong end. CROSS JOIN is SQLite's way to fix the order.
    """

    def get_from_hint_text(self, table: Any, text: str | None) -> str | None:  # noqa: ARG002 -- the base's
        return text

    def visit_join(self, join: Any, asfrom: Any = False, from_linter: Any = None, **kwargs: Any) -> Any:  # noqa: ARG002, FBT002 -- the base's
        left, right = (self.process(side, asfrom=True, **kwargs) for side in (join.left, join.right))
        kind = "LEFT" if join.isouter else "CROSS"
        return f"{left} {kind} JOIN {right} ON {self.process(join.onclause, **kwargs)}"

    def limit_clause(self, select: Any, **kwargs: Any) -> str:
        """Return a limit that SQLite does not look at: one that is bound plainly has it compile each time anew."""
        limit, offset = (
            f"{self.process(clause, **kwargs)} + 0" if clause is not None else ""
            for clause in (select._limit_clause, select._offset_clause)  # noqa: SLF001 -- as the base does
        )
        return f"\n LIMIT {limit or -1}" + (f" OFFSET {offset}" if offset else "")


@compiles(Among, "sqlite")
def _among(element: Among, compiler: Any, **kwargs: Any) -> str:
    column = compiler.process(element.column, **kwargs)
    match kwargs["among"]:
        case 0:
            return f"{column} IN (SELECT NULL WHERE 0)"  # as `IN ()`, but an index may be named for it
        case 1:
            return f"{column} IN ({compiler.process(element.values, **kwargs)})"
    values = compiler.process(element.values, **kwargs)
    return f"{column} IN (SELECT value FROM json_each({values}))"  # noqa: S608 -- a placeholder


def parse(url: str) -> Path:
    """Return the file that a store's URL names; raise ``InvalidStoreError``."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise InvalidStoreError(f"{url!r} is no job store's URL; write sqlite:///FILE") from error
    if not parsed.database or parsed.database == ":memory:" or parsed.host:
        raise InvalidStoreError(f"{url!r} names no file; write sqlite:///FILE, or sqlite:////ABSOLUTE/FILE")
    return Path(parsed.database)


class Lock:
    """Keeps a second manager off the file.

    The lock lies on a file beside the store: closing any descriptor of the store itself would drop SQLite's own
    locks. The kernel releases it when the process dies, however it dies; an orderly close removes the file.
    """

    def __init__(self, store: Path) -> None:
        self._path = store.with_name(store.name + ".lock")
        self._descriptor = self._take(store)

    def _take(self, store: Path) -> int:
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(descriptor)
                raise StoreInUseError(str(store)) from error
            if self._is_named(descriptor):
                return descriptor
            os.close(descriptor)

    def _is_named(self, descriptor: int) -> bool:
        """Tell whether the locked file is still the one at the path: its holder may have removed it meanwhile."""
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(descriptor), self._path.stat())
        return False

    def release(self) -> None:
        """Remove the file, then let go of it."""
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


class SqliteConnection:
    """A connection whose transactions are begun and ended by name."""

    def __init__(self, raw: Any, dialect: Dialect) -> None:
        self.raw = raw
        self._dialect = dialect
        self._cursor = raw.cursor()

    def rows(self, statement: Statement, **given: Any) -> list[Any]:
        """Run a statement and return its rows."""
        text = statement.text(self._dialect, given)
        with translated:
            self._cursor.execute(text.sql, text.values(given))
            return list(map(text.row, self._cursor.fetchall()))

    def batches(self, statement: Statement, size: int, **given: Any) -> Generator[list[Any]]:
        """Run a statement only as far as its rows are asked for, ``size`` at first and ever more; to be closed."""
        text = statement.text(self._dialect, given)
        with closing(self.raw.cursor()) as cursor:
            with translated:
                cursor.execute(text.sql, text.values(given))
            while True:
                with translated:
                    found = cursor.fetchmany(size)
                if found:
                    yield list(map(text.row, found))
                if len(found) < size:
                    return
                size *= 2

    def run(self, statement: Statement, **given: Any) -> int:
        """Run a statement and return how many rows it changed."""
        text = statement.text(self._dialect, given)
        self._execute(text.sql, text.values(given))
        changed: int = self._cursor.rowcount
        return changed

    def run_many(self, statement: Statement, many: Sequence[dict[str, Any]]) -> int:
        """Run a statement without lists once for each set of values; return how many rows it changed in all."""
        if not many:
            return 0
        if statement.lists:
            raise TypeError("a statement with lists is run once, for the length of its lists is in its text")
        text = statement.text(self._dialect, many[0])
        if len(many) == 1:
            self._execute(text.sql, text.values(many[0]))
        else:
            with translated:
                self._cursor.executemany(text.sql, list(map(text.values, many)))
        changed: int = self._cursor.rowcount
        return changed

    def plan(self, statement: Statement, **given: Any) -> list[str]:
        """Return the lines of the statement's query plan; of what is given only the lengths of lists matter."""
        text = statement.text(self._dialect, given)
        return [row[3] for row in self.raw.execute("EXPLAIN QUERY PLAN " + text.sql, [None] * len(text.names))]

    def begin(self) -> None:
        """Begin a transaction that writes; one that could not be undone before is undone now."""
        self.rollback()
        self._execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Make what was written last."""
        self._execute("COMMIT")

    def rollback(self) -> None:
        """Undo what was written; some errors of SQLite have done so already."""
        if self.raw.in_transaction:
            self._execute("ROLLBACK")

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let every statement of the block see the same state."""
        self._execute("BEGIN")
        try:
            yield
        finally:
            self.rollback()

    def changes(self) -> int:
        """Return how many rows were changed since the connection was opened."""
        changed: int = self.raw.total_changes
        return changed

    def _execute(self, sql: str, values: Sequence[object] = ()) -> None:
        with translated:
            self._cursor.execute(sql, values)


class SqliteFile:
    """An open store: its lock, the connection that writes, the one that reads, and the copying of the log."""

    def __init__(self, path: Path, *, synchronous: str) -> None:
        if dbapi2.sqlite_version_info < _LEAST_VERSION:
            raise InvalidStoreError(f"SQLite {dbapi2.sqlite_version} is too old; install pysqlite3 0.6.1 or later")
        if synchronous not in _SYNCHRONOUS:
            raise InvalidStoreError(f"synchronous cannot be {synchronous!r}; write full or normal")
        self._path = path
        self._lock = _locked(path)
        self.engine = _engine(path)
        try:
            with _no_store(path):
                self.fresh = not path.exists() or path.stat().st_size == 0
                if not self.fresh:
                    _refuse_foreign(path)
                self.writer = self._connect(synchronous)
                self.reader = self._connect(synchronous)
                self.checkpoints = Checkpoints(lambda: self._connect(synchronous).raw, self.writer.raw)
                self.tables = frozenset(row[0] for row in self.writer.raw.execute(_TABLES))
        except BaseException:
            self._lock.release()
            raise

    def _connect(self, synchronous: str) -> SqliteConnection:
        raw: Any = self.engine.dialect.connect(str(self._path), isolation_level=None, timeout=_PATIENCE)
        for pragma in (
            "journal_mode = WAL",
            f"synchronous = {synchronous}",
            "foreign_keys = ON",
            f"cache_size = {_PAGES_KEPT}",
            "temp_store = MEMORY",
            f"journal_size_limit = {_LOG_KEPT}",
            "wal_autocheckpoint = 0",
        ):
            raw.execute(f"PRAGMA {pragma}")
        return SqliteConnection(raw, self.engine.dialect)

    def close(self) -> None:
        """Write the log back into the file and let the next manager in."""
        try:
            self.checkpoints.close()
            self.reader.raw.close()
            with suppress(dbapi2.Error):
                self.writer.raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self.writer.raw.close()
        finally:
            self._lock.release()


_TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table'"


def _refuse_foreign(path: Path) -> None:
    """Refuse somebody else's database before anything of it, such as its journal mode, is changed."""
    raw = dbapi2.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=_PATIENCE)
    try:
        tables = {row[0] for row in raw.execute(_TABLES)}
    finally:
        raw.close()
    if tables and "store_state" not in tables:
        raise InvalidStoreError(f"{path} is a database, but no job store; name another file")


def _locked(path: Path) -> Lock:
    if path.is_dir():
        raise InvalidStoreError(f"the job store {path} is a directory; name a file in it")
    if not path.parent.is_dir():
        raise InvalidStoreError(f"the directory {path.parent} of the job store does not exist; make it first")
    try:
        return Lock(path)
    except OSError as error:
        raise InvalidStoreError(f"the job store {path} cannot be opened: {error.strerror}") from error


def _engine(path: Path) -> Engine:
    engine = create_engine(URL.create("sqlite", database=str(path)), module=dbapi2, poolclass=NullPool)
    engine.dialect.statement_compiler = _Compiler
    return engine


@contextmanager
def _no_store(path: Path) -> Iterator[None]:
    try:
        yield
    except dbapi2.Error as error:
        raise InvalidStoreError(f"{path} is no job store that can be opened: {error}") from error


class _Translated:
    """Turns the driver's errors about the file, the disk and its locks into ``StoreUnavailableError``.

    A class, because it surrounds every statement: a generator costs seven times as much.
    """

    def __enter__(self) -> None:
        """Let the block run."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if not isinstance(error, dbapi2.DatabaseError) or isinstance(error, _DEFECTS):
            return
        if getattr(error, "sqlite_errorcode", None) != _SQL_ERROR:
            raise StoreUnavailableError(str(error)) from error


translated = _Translated()
