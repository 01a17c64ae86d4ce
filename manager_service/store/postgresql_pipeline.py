"""Statements that are sent to PostgreSQL one after another, and waited for only when an answer is read.

They go by the driver's own layer over libpq: its cursors take longer to send one than the server takes to run it.
"""

import select
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg import errors, pq
from psycopg.adapt import Transformer

# Longer than the server lets a statement take: who does not answer then hangs, or is gone without a word.
_PATIENCE: Final = 75.0
_ENDED: Final = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)

Row = Callable[[Sequence[Any]], Any]


class Answer:
    """The answer to a statement that was sent; it is there once it was waited for."""

    __slots__ = ("_pipeline", "_result", "sql", "sync")

    def __init__(self, pipeline: "Pipeline", sql: str, sync: int) -> None:
        self._pipeline = pipeline
        self._result: pq.abc.PGresult | None = None
        self.sql = sql
        # The number of the sync that has the server answer.
        self.sync = sync

    @property
    def there(self) -> bool:
        """Whether it needs not be waited for."""
        return self._result is not None

    def came(self, result: pq.abc.PGresult) -> None:
        """Keep what the server answered."""
        self._result = result

    def rows(self, row: Row) -> list[Any]:
        """Wait for the answer, and return its rows, each made of a tuple of values."""
        return self._pipeline.load(self._waited_for(), row)

    def changed(self) -> int:
        """Wait for the answer, and return how many rows were changed."""
        return self._waited_for().command_tuples or 0

    def _waited_for(self) -> pq.abc.PGresult:
        if self._result is None:
            self._pipeline.wait(self)
        if self._result is None:
            raise AssertionError(self.sql)  # an answer that failed was raised
        return self._result


class Pipeline:
    """The statements that are under way on a connection, which is from now on used by nobody else.

    Args:
        raw: the driver's connection.
        prepares: whether the server may keep statements for the next time.

    Whatever waits raises the driver's errors: those of the first statement that failed, whether somebody reads its
    answer or not. Those that were sent after it were not run.
    """

    def __init__(self, raw: psycopg.Connection[Any], *, prepares: bool) -> None:
        self._raw = raw
        self._libpq = raw.pgconn
        self._libpq.nonblocking = 1
        self._libpq.enter_pipeline_mode()
        self._socket = select.poll()
        self._socket.register(self._libpq.socket, select.POLLIN)
        self._full_socket = select.poll()
        self._full_socket.register(self._libpq.socket, select.POLLIN | select.POLLOUT)
        self._transformer = Transformer(raw)
        self._prepares = prepares
        self._prepared: dict[str, bytes] = {}
        self._number = 0
        # What is answered next: the reader of a statement, the text of one that is prepared, a sync, or nobody.
        self._due: deque[object] = deque()
        # How many syncs were sent, and how many have to be for everything that was sent to be done.
        self._syncs = self._needed = 0
        self._failed: psycopg.Error | None = None

    @property
    def closed(self) -> bool:
        """Whether the connection is closed."""
        return self._raw.closed

    @property
    def idle(self) -> bool:
        """Whether there is no transaction."""
        return self._libpq.transaction_status == pq.TransactionStatus.IDLE

    def has_news(self) -> bool:
        """Tell whether the server has something to say that nobody asked for: that it closes the connection."""
        return bool(self._socket.poll(0))

    def post(self, sql: str, values: Sequence[Any] = ()) -> None:
        """Send a statement whose answer nobody reads."""
        self._send(sql, values, None)

    def ask(self, sql: str, values: Sequence[Any] = ()) -> Answer:
        """Send a statement and return its answer, to be waited for."""
        answer = Answer(self, sql, self._syncs + 1)
        self._send(sql, values, answer)
        return answer

    def wait(self, answer: Answer | None = None) -> None:
        """Wait until an answer is there; without one, until everything that was sent is done."""
        if (answer.sync if answer is not None else self._needed) > self._syncs:
            self.send()
        while self._due and (answer is None or not answer.there or self._failed is not None):
            if self._failed is not None and self._needed > self._syncs:
                self.send()
            self._take()
        if self._failed is not None:
            failed, self._failed = self._failed, None
            raise failed

    def send(self) -> None:
        """Have everything done that was asked and posted, and do not wait for it."""
        # Not only flushed: without a sync the server would wait for ever for a manager that stands still, and its
        # locks with it, for it does not count as idle within a transaction.
        self._libpq.pipeline_sync()
        self._due.append(_SYNC)
        self._syncs += 1
        self._flush()

    @contextmanager
    def copying(self, sql: str) -> Iterator[Callable[[bytes], None]]:
        """Begin a COPY when everything that was sent is done, and hand out what takes its rows.

        It is ended with the block, or given up with the whole transaction if that fails.
        """
        self.wait()
        # A COPY is not allowed in a pipeline.
        self._libpq.exit_pipeline_mode()
        try:
            self._libpq.send_query(sql.encode())
            self._flush()
            self._ended(self._next(), pq.ExecStatus.COPY_IN)
            try:
                yield self._write
            except BaseException:
                self._put(lambda: self._libpq.put_copy_end(b"given up"))
                raise
            self._put(self._libpq.put_copy_end)
            self._ended(self._next(), pq.ExecStatus.COMMAND_OK)
        finally:
            while self._next() is not None:
                pass
            self._libpq.enter_pipeline_mode()

    def _write(self, rows: bytes) -> None:
        self._put(lambda: self._libpq.put_copy_data(rows))

    def _put(self, put: Callable[[], int]) -> None:
        while not put():
            self._patiently(self._full_socket)
            self._libpq.consume_input()
        self._flush()

    @staticmethod
    def _ended(result: pq.abc.PGresult | None, status: int) -> None:
        if result is None or result.status != status:
            raise _error(result) if result is not None else psycopg.OperationalError("no answer")

    def load(self, result: pq.abc.PGresult, row: Row) -> list[Any]:
        """Return the rows of an answer as Python's values."""
        self._transformer.set_pgresult(result)
        return self._transformer.load_rows(0, result.ntuples, row)

    def close(self) -> None:
        """Close the connection."""
        self._raw.close()

    def _send(self, sql: str, values: Sequence[Any], reader: Answer | None) -> None:
        parameters = [None if value is None else _WRITTEN.get(type(value), _written)(value) for value in values]
        if self._prepares:
            self._libpq.send_query_prepared(self._prepared.get(sql) or self._prepare(sql, values), parameters)
        else:
            self._libpq.send_query_params(sql.encode(), parameters, _kinds(values))
        self._due.append(reader)
        self._needed = self._syncs + 1

    def _prepare(self, sql: str, values: Sequence[Any]) -> bytes:
        self._number += 1
        name = self._prepared[sql] = b"s%d" % self._number
        self._libpq.send_prepare(name, sql.encode(), _kinds(values))
        self._due.append(sql)
        return name

    def _take(self) -> None:
        """Take the next answer and hand it to whoever waits for it."""
        result = self._next()
        due = self._due.popleft()
        if due is _SYNC:
            return
        if result is None:
            raise psycopg.OperationalError(self._libpq.get_error_message())
        if result.status not in _ENDED:
            self._fail(result, due)
        elif isinstance(due, Answer):
            due.came(result)
        if self._due:
            self._next()

    def _fail(self, result: pq.abc.PGresult, due: object) -> None:
        """Keep the first error, and forget a statement that was not prepared."""
        if isinstance(due, str):
            self._prepared.pop(due, None)
        if self._failed is None and result.status != pq.ExecStatus.PIPELINE_ABORTED:
            self._failed = _error(result)
        if self._libpq.status == pq.ConnStatus.BAD:
            self._due.clear()

    def _flush(self) -> None:
        while self._libpq.flush():
            # The server may be waiting for its answers to be taken.
            self._patiently(self._full_socket)
            self._libpq.consume_input()

    def _next(self) -> pq.abc.PGresult | None:
        while self._libpq.is_busy():
            self._patiently(self._socket)
            self._libpq.consume_input()
        return self._libpq.get_result()

    def _patiently(self, socket: select.poll) -> None:
        if not socket.poll(1_000 * _PATIENCE):
            self._raw.close()
            raise psycopg.OperationalError(f"the server has not answered for {_PATIENCE:.0f} s")


def _text(value: str) -> bytes:
    # PostgreSQL has no text with NUL characters.
    return (value.replace("\0", "\ufffd") if "\0" in value else value).encode()


def _error(result: pq.abc.PGresult) -> psycopg.Error:
    """Return the error that a result tells; one without a state is libpq's own, which makes an end of it."""
    if not result.error_field(pq.DiagnosticField.SQLSTATE):
        return psycopg.OperationalError(result.get_error_message())
    return errors.error_from_result(result)


def _kinds(values: Sequence[Any]) -> list[int]:
    """Return what the server is to take values for that it could not tell from what they are compared with."""
    return [_KINDS.get(type(value), 0) for value in values]


def _written(value: object) -> bytes:
    """Return a value of a kind that is rare, as PostgreSQL reads it."""
    for kind in (str, bool, int):
        if isinstance(value, kind):
            return _WRITTEN[kind](value)
    raise TypeError(f"no column takes a {type(value).__name__}")


_SYNC: Final = object()
# PostgreSQL's numbers of its types bool and int8.
_KINDS: Final[dict[type, int]] = {bool: 16, int: 20}
_WRITTEN: Final[dict[type, Callable[[Any], bytes]]] = {
    str: _text,
    int: lambda value: b"%d" % value,
    bool: lambda value: b"t" if value else b"f",
}
