"""SQLite: the file, its connections, the errors of its driver. What its SQL has of its own is `sqlite_dialect`."""

import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from pysqlite3 import dbapi2
from sqlalchemy import Table
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.exc import ArgumentError, DBAPIError

from manager_service.domain.errors import InvalidStoreError, ManagerError, StoreUnavailableError
from manager_service.store.checkpoints import Checkpoints
from manager_service.store.file_lock import Lock
from manager_service.store.sqlite_dialect import sqlite_engine
from manager_service.store.statements import Changed, Rows, Statement, insertion

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
_RIGHTS: Final = "let the manager's user write it and its folder, or name another file"
_DAMAGED: Final = "keep a copy, then restore a backup in its place, or name another file"
# What nobody but the operator can help; by the primary code of SQLite.
_REMEDIES: Final = {
    dbapi2.SQLITE_PERM: _RIGHTS,
    dbapi2.SQLITE_READONLY: _RIGHTS,
    dbapi2.SQLITE_CANTOPEN: _RIGHTS,
    dbapi2.SQLITE_CORRUPT: _DAMAGED,
    dbapi2.SQLITE_NOTADB: _DAMAGED,
}
_PRIMARY: Final = 0xFF


def parse(url: str) -> Path:
    """Return the file that a store's URL names; raise ``InvalidStoreError``."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise InvalidStoreError(f"{url!r} is no job store's URL; write sqlite:///FILE") from error
    if not parsed.database or parsed.database == ":memory:" or parsed.host:
        raise InvalidStoreError(f"{url!r} names no file; write sqlite:///FILE, or sqlite:////ABSOLUTE/FILE")
    return Path(parsed.database)


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

    def copy_many(
        self, table: Table, pieces: Iterable[Sequence[Mapping[str, Any]]], **same: Any
    ) -> Generator[None]:
        """Insert rows that have the same columns, piece by piece; ``same`` is what all of them share."""
        for rows in pieces:
            self.run_many(insertion(table), [{**same, **row} for row in rows])
            yield

    post = run
    post_many = run_many

    def ask(self, statement: Statement, **given: Any) -> Rows:
        """Run a statement; what is returned returns its rows."""
        found = self.rows(statement, **given)
        return lambda: found

    def ask_many(self, statement: Statement, many: Sequence[dict[str, Any]]) -> Changed:
        """Run a statement for many sets of values; what is returned returns how many rows it changed."""
        changed = self.run_many(statement, many)
        return lambda: changed

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
        self.engine = sqlite_engine(path)
        try:
            with opening(path):
                self.fresh = not path.exists() or path.stat().st_size == 0
                if not self.fresh:
                    _refuse_unwritable(path)
                    _refuse_foreign(path)
                self.writer = self._connect(synchronous)
                self.reader = self._connect(synchronous)
                self._entry = path.stat()
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

    def check_place(self) -> None:
        """Refuse to go on where the file is not in its place any more: what is written would be gone at the end.

        Raises:
            StoreUnavailableError: it was moved, replaced or deleted.
        """
        with suppress(OSError):
            if os.path.samestat(self._entry, os.stat(self._path)):  # noqa: PTH116 - at each transaction, and faster
                return
        raise StoreUnavailableError(
            "its file was moved, replaced or deleted; stop the manager, put the file back, start the manager"
        )

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


def _refuse_unwritable(path: Path) -> None:
    """Refuse a file that may only be read before SQLite leaves a log beside it."""
    # Asked for, not tried: closing a descriptor of the file would drop the locks that SQLite has on it.
    if not os.access(path, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise _cannot_be_opened(path, "it may not be read and written", _RIGHTS)


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
        raise _cannot_be_opened(path, error.strerror, _RIGHTS) from error


@contextmanager
def opening(path: Path) -> Iterator[None]:
    """Let a store be opened; what the driver says meanwhile becomes an error that names the file.

    Raises:
        InvalidStoreError: the file is damaged, no database, or may not be written.
        StoreUnavailableError: the file cannot be used now, such as on a full disk.
    """
    try:
        yield
    except (dbapi2.Error, DBAPIError, StoreUnavailableError) as error:
        raise _refusal(path, error) from error


def _refusal(path: Path, error: dbapi2.Error | DBAPIError | StoreUnavailableError) -> ManagerError:
    """Return the refusal of a file, from the error of the driver that the one given may wrap."""
    found = error.orig if isinstance(error, DBAPIError) else error
    found = found.__cause__ or found if isinstance(found, StoreUnavailableError) else found
    code = getattr(found, "sqlite_errorcode", 0) & _PRIMARY
    if code in _REMEDIES:
        return _cannot_be_opened(path, str(found), _REMEDIES[code])
    return StoreUnavailableError(f"{path}: {found}")


def _cannot_be_opened(path: Path, why: str | None, remedy: str) -> InvalidStoreError:
    return InvalidStoreError(f"the job store {path} cannot be opened: {why}; {remedy}")


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
