"""A connection to PostgreSQL: its transactions and statements. Its own SQL is in `postgresql_dialect`."""

import json
import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, islice
from operator import itemgetter
from typing import Any, Final

import psycopg
from sqlalchemy import Table
from sqlalchemy.engine.interfaces import Dialect

from manager_service.store.postgresql_copy import copying
from manager_service.store.postgresql_dialect import RowsText
from manager_service.store.postgresql_door import SETTINGS, Door
from manager_service.store.postgresql_errors import Translated
from manager_service.store.postgresql_pipeline import Pipeline, Row
from manager_service.store.statements import Changed, Rows, Statement, insertion

_SET_LOCAL: Final = "SELECT set_config(key, value, true) FROM json_each_text(CAST($1 AS JSON))"
_NUL: Final = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")
# Fewer rows are sent along with whatever else there is, which needs no waiting.
_WORTH_A_COPY: Final = 200
# One that took in a million rows could be longer than a statement may.
_PIECES_OF_A_COPY: Final = 50
# So old a plan may be, in seconds: one that was made while a table was empty goes along whatever index there is.
_PLANS_KEPT: Final = 5.0


class PostgresConnection:
    """A connection that is opened when it is needed, whose transactions are begun and ended by name.

    A transaction is one pipeline: what is posted is sent together with the next statement whose rows are read.
    """

    def __init__(self, door: Door, dialect: Dialect) -> None:
        self._door = door
        self._dialect = dialect
        self._pipeline: Pipeline | None = None
        self._given_up = False
        self._many: dict[Statement, RowsText] = {}
        self._changed = 0
        self._planned = 0.0
        self._translated = Translated(self._give_up)

    def rows(self, statement: Statement, **given: Any) -> list[Any]:
        """Run a statement and return its rows."""
        text = statement.text(self._dialect, given)
        with self._translated:
            return self._open.ask(text.sql, text.values(given)).rows(text.row)

    def ask(self, statement: Statement, **given: Any) -> Rows:
        """Send a statement together with the next that is waited for; what is returned waits for its rows."""
        text = statement.text(self._dialect, given)
        return self._ask(text.sql, text.values(given), text.row)

    def ask_many(self, statement: Statement, many: Sequence[dict[str, Any]]) -> Changed:
        """Send a statement for many sets of values; what is returned waits for how many rows it changed."""
        self._changed += 1
        sql, values = self._for_many(statement, many)
        with self._translated:
            answer = self._open.ask(sql, values)

        def changed() -> int:
            with self._translated:
                return answer.changed()

        return changed

    def ask_names(self, sql: str, names: Sequence[str]) -> Rows:
        """Send a statement about names; what is returned waits for the first values of its rows."""
        return self._ask(sql, [json.dumps(names)], itemgetter(0))

    def batches(self, statement: Statement, size: int, **given: Any) -> Generator[list[Any]]:
        """Send a statement for its first rows, and for all if more are asked for; then the first come again."""
        text = statement.text(self._dialect, given)
        # A power of two, so that few texts are prepared.
        limit = 1 << size.bit_length()
        first = self._ask(f"{text.sql} LIMIT {limit}", text.values(given), text.row)

        def batches() -> Generator[list[Any]]:
            yield (found := first())
            if len(found) == limit:
                yield self.rows(statement, **given)

        return batches()

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
        self._changed += 1
        self._post(text.sql, text.values(given))

    def post_many(self, statement: Statement, many: Sequence[dict[str, Any]]) -> None:
        """Run a statement for many sets of values together with the next whose rows are read."""
        if many:
            self._changed += 1
            self._post(*self._for_many(statement, many))

    def copy_many(
        self, table: Table, pieces: Iterable[Sequence[Mapping[str, Any]]], **same: Any
    ) -> Generator[None]:
        """Insert rows piece by piece, many in one COPY, which takes them in while the next are thought out."""
        pieces = iter(pieces)
        for first in pieces:
            if len(first) < _WORTH_A_COPY:
                self.post_many(insertion(table), [{**same, **row} for row in first])
                yield
                continue
            how = copying(table, tuple(first[0]), tuple(same))
            with self._translated, self._open.copying(how.sql) as write:
                for rows in chain([first], islice(pieces, _PIECES_OF_A_COPY - 1)):
                    write(how.text(rows, same))
                    self._changed += len(rows)
                    yield

    def hold(self, statement: Statement, **given: Any) -> None:
        """Run a statement that locks and changes nothing, together with the next whose rows are read."""
        text = statement.text(self._dialect, given)
        self._post(text.sql, text.values(given))

    def post_locking(self, sql: str) -> None:
        """Run a statement that only locks, together with the next whose rows are read."""
        self._post(sql, ())

    def post_names(self, sql: str, names: Sequence[str]) -> None:
        """Run a statement about names together with the next whose rows are read."""
        self._post(sql, [json.dumps(names)])

    def changes(self) -> int:
        """Return a number that rises with each statement that may have changed something."""
        return self._changed

    def begin(self) -> None:
        """Begin a transaction; one that could not be undone before is undone now."""
        self._begin("BEGIN")

    def commit(self) -> None:
        """Make what was written last; raise what was wrong with anything that was posted."""
        with self._translated:
            self._open.post("COMMIT")
            self._open.wait()

    def rollback(self) -> None:
        """Undo what was written; a connection on which that fails is given up, which undoes it as well."""
        pipeline = self._pipeline
        if pipeline is None:
            return
        if self._given_up or pipeline.closed:
            self.close()
            return
        with suppress(psycopg.Error):
            pipeline.wait()
        try:
            if not pipeline.idle:
                pipeline.post("ROLLBACK")
                pipeline.wait()
        except psycopg.Error:
            self.close()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let every statement of the block see the same state."""
        self._begin("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            yield
            # Not waited for: there is nothing that could be lost.
            with self._translated:
                self._open.post("COMMIT")
                self._open.send()
        except BaseException:
            self.rollback()
            raise

    def close(self) -> None:
        """Close the connection; it is opened again when it is needed."""
        pipeline, self._pipeline, self._given_up = self._pipeline, None, False
        if pipeline is not None:
            with suppress(psycopg.Error):
                pipeline.close()

    @property
    def _open(self) -> Pipeline:
        """The pipeline of the transaction: one whose connection was lost is not continued on another."""
        if self._pipeline is None:
            raise psycopg.InterfaceError("there is no connection to the database")
        return self._pipeline

    def _begin(self, sql: str) -> None:
        self.rollback()
        if self._pipeline is not None and self._pipeline.has_news():
            # The server has closed the connection: nothing was asked, so nothing is lost, and another one will do.
            self.close()
        if self._pipeline is None or self._pipeline.closed:
            with self._translated:
                self._pipeline = Pipeline(self._door.open(), prepares=not self._door.pooled)
        self._post(sql, ())
        if self._door.pooled:
            # What is set for the connection otherwise.
            self._post(_SET_LOCAL, [json.dumps(SETTINGS)])
        elif (now := time.monotonic()) - self._planned > _PLANS_KEPT:
            self._planned = now
            self._post("DISCARD PLANS", ())

    def _give_up(self) -> None:
        """Take another connection for the next transaction: this one leads to a standby by now."""
        self._given_up = True

    def _for_many(self, statement: Statement, many: Sequence[dict[str, Any]]) -> tuple[str, Sequence[Any]]:
        if len(many) == 1:
            text = statement.text(self._dialect, many[0])
            return text.sql, text.values(many[0])
        rows = self._many.get(statement)
        if rows is None:
            rows = self._many[statement] = RowsText(statement.core, self._dialect)
        return rows.sql, [_without_nul(json.dumps(many))]

    def _ask(self, sql: str, values: Sequence[Any], row: Row) -> Callable[[], list[Any]]:
        with self._translated:
            answer = self._open.ask(sql, values)

        def rows() -> list[Any]:
            with self._translated:
                return answer.rows(row)

        return rows

    def _post(self, sql: str, values: Sequence[Any]) -> None:
        with self._translated:
            self._open.post(sql, values)

    def _run(self, sql: str, values: Sequence[Any]) -> int:
        with self._translated:
            changed = self._open.ask(sql, values).changed()
        self._changed += changed
        return changed


def _without_nul(text: str) -> str:
    """Return JSON without NUL characters, which PostgreSQL's texts do not have; a written-out one is none."""
    return _NUL.sub(r"\1\\ufffd", text) if "\\u0000" in text else text
