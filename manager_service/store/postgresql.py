"""A connection to PostgreSQL: its transactions and statements. Its own SQL is in `postgresql_dialect`."""

import json
import select
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import chain, islice
from typing import Any, Final

import psycopg
from sqlalchemy import Table
from sqlalchemy.engine.interfaces import Dialect

from manager_service.store.postgresql_copy import copying
from manager_service.store.postgresql_dialect import RowsText
from manager_service.store.postgresql_door import SETTINGS, Door
from manager_service.store.postgresql_errors import Translated
from manager_service.store.statements import Statement

_SET_LOCAL: Final = "SELECT set_config(key, value, true) FROM json_each_text(CAST($1 AS JSON))"
# One that took in a million rows could be longer than a statement may.
_PIECES_OF_A_COPY: Final = 50


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
        self._translated = Translated(self._give_up)

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

    def copy_many(
        self, table: Table, pieces: Iterable[Sequence[Mapping[str, Any]]], **same: Any
    ) -> Generator[None]:
        """Insert rows piece by piece, in one COPY, which takes them in while the next ones are thought out."""
        pieces = iter(pieces)
        for first in pieces:
            how = copying(table, tuple(first[0]), tuple(same))
            with self._translated:
                # A COPY is not allowed in a pipeline.
                self._end_pipeline()
                raw = self._open()
                with raw.cursor().copy(how.sql) as copy:
                    for rows in chain([first], islice(pieces, _PIECES_OF_A_COPY - 1)):
                        copy.write(how.text(rows, same))
                        self._changed += len(rows)
                        yield
                self._enter_pipeline(raw)

    def names(self, sql: str, names: Sequence[str]) -> list[str]:
        """Run a statement about names and return the names that it returns."""
        with self._translated:
            return [row[0] for row in self._read(sql, [json.dumps(names)])]

    def hold(self, statement: Statement, **given: Any) -> None:
        """Run a statement that locks and changes nothing, together with the next whose rows are read."""
        text = statement.text(self._dialect, given)
        with self._translated:
            _execute(self._poster, text.sql, text.values(given))

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
            self._enter_pipeline(raw)
            self._poster.execute(sql)
            if self._door.pooled:
                # What is set for the connection otherwise.
                self._poster.execute(_SET_LOCAL, [json.dumps(SETTINGS)])

    def _enter_pipeline(self, raw: psycopg.Connection[Any]) -> None:
        self._pipelined = raw.pipeline()
        self._pipeline = self._pipelined.__enter__()

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
