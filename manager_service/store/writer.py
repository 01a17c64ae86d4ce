"""The writer: commands queue while a transaction commits, and go together into the next one."""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator, Sequence
from itertools import islice
from types import GeneratorType
from typing import Any, Protocol, TypeVar

from manager_service.domain.errors import ManagerError, OverloadedError, ShuttingDownError, StoreUnavailableError
from manager_service.domain.ports import Hints
from manager_service.store.errors import ConflictError, ConnectionLostError
from manager_service.store.unit_of_work import UnitOfWork

T = TypeVar("T")
# A command that works in pieces: between them the transaction stays open and the event loop goes on.
Bulk = Generator[None, None, T]
Command = Callable[[UnitOfWork], Any]

_PIECE = 2_000
# What waits longer than this queue takes is better sent again later.
MOST_QUEUED = 10_000
_RETRY_AFTER = 1.0
# How often a transaction is tried that others were in the way of, and how long it pauses, in seconds, ever longer.
_ATTEMPTS = 5
_PAUSE = 0.01


def pieces(items: Iterable[T], size: int = _PIECE) -> Iterator[list[T]]:
    """Cut items into lists that are written without a pause."""
    iterator = iter(items)
    while piece := list(islice(iterator, size)):
        yield piece


class Entry:
    """A command that waits for its turn, what came of it, and the future of its caller.

    ``key`` names the session or the parent job that a command locks first.
    """

    __slots__ = ("command", "error", "future", "key", "value")

    def __init__(self, command: Command, future: asyncio.Future[Any], key: str) -> None:
        self.command = command
        self.future = future
        self.key = key
        self.value: Any = None
        self.error: BaseException | None = None

    def answer(self) -> None:
        """Hand the result or the refusal to the caller."""
        if self.future.done():
            return  # the caller went away
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.value)

    def refuse(self, error: BaseException) -> None:
        """Hand a refusal to the caller, in place of a result."""
        self.error = error
        self.answer()


class Transactions(Protocol):
    """The transactions of a connection that writes."""

    async def drive(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a transaction to its end, where the connection is to be used."""

    def choose(self, queue: deque[Entry]) -> list[Entry]:
        """Take the commands of the next transaction off the queue, in the order in which they are to be run."""

    def begin(self) -> UnitOfWork:
        """Begin a transaction."""

    def changes(self) -> int:
        """Return how many rows were changed so far."""

    def commit(self, tx: UnitOfWork) -> Hints:
        """Write what the unit of work owes, commit, and return what listeners are to look at."""

    def rollback(self) -> None:
        """Undo the transaction, if one is open."""


def _refusal(error: Exception) -> BaseException:
    """Return what a caller is told of a transaction that failed."""
    why = error.__cause__ if isinstance(error, _SpoiltError) and error.__cause__ else error
    return (
        StoreUnavailableError(f"other managers were in the way: {why}") if isinstance(why, ConflictError) else why
    )


class _SpoiltError(Exception):
    """A command failed after it wrote, or in a way that was not foreseen: the whole transaction is void."""


class Writer:
    """Runs commands, many in one transaction, each with its own answer.

    Where there are several connections, whichever is free takes all that waits.

    A command that is refused before it wrote anything answers its caller alone. One that fails after it wrote, or
    unexpectedly, voids the transaction: every command of it then runs again in a transaction of its own, so that
    one failure never harms another. A caller that goes away loses the answer only.
    """

    def __init__(self, connections: Sequence[Transactions], publish: Callable[[Hints], None]) -> None:
        self._free = list(reversed(connections))
        self._publish = publish
        self._queue: deque[Entry] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self.closed = False

    def submit(self, command: Command, key: str = "") -> asyncio.Future[Any]:
        """Queue a command and return the future of its result.

        Raises:
            ShuttingDownError: the store is closing.
            OverloadedError: too many commands wait.
        """
        if self.closed:
            raise ShuttingDownError
        if len(self._queue) >= MOST_QUEUED:
            raise OverloadedError("the queue of the job store", _RETRY_AFTER)
        loop = asyncio.get_running_loop()
        entry = Entry(command, loop.create_future(), key)
        self._queue.append(entry)
        if self._free:
            task = loop.create_task(self._drain(self._free.pop()), name="store-writer")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return entry.future

    async def close(self) -> None:
        """Take no more commands and finish those that queue."""
        self.closed = True
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))

    async def _drain(self, transactions: Transactions) -> None:
        try:
            while self._queue:
                await self._serve(transactions, transactions.choose(self._queue))
                if self._queue:
                    await asyncio.sleep(0)
        except asyncio.CancelledError:
            self._abandon()
            raise
        finally:
            self._free.append(transactions)

    def _abandon(self) -> None:
        """Refuse what still queues when the task is cancelled, which only the end of the loop does."""
        while self._queue:
            self._queue.popleft().refuse(ShuttingDownError())

    async def _serve(self, transactions: Transactions, entries: Sequence[Entry]) -> None:
        """Run commands together, or each alone where that fails, and answer their callers."""
        try:
            hints = await self._repeatedly(transactions, entries)
        except asyncio.CancelledError:
            for entry in entries:
                entry.refuse(ShuttingDownError())
            raise
        except Exception as error:  # noqa: BLE001 -- the callers get it, the writer goes on
            if len(entries) == 1 or isinstance(error, ConnectionLostError):
                for entry in entries:
                    entry.refuse(_refusal(error))
                return
            for entry in entries:
                await self._serve(transactions, [entry])
            return
        for entry in entries:
            entry.answer()
        self._tell(hints)

    def _tell(self, hints: Hints) -> None:
        """Pass the hints on; what was committed stands, whatever a listener makes of it."""
        try:
            self._publish(hints)
        except Exception as error:  # noqa: BLE001 -- told where unhandled errors of the loop are told
            context = {"message": "a listener of the job store failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)

    async def _repeatedly(self, transactions: Transactions, entries: Sequence[Entry]) -> Hints:
        """Run commands in one transaction, again where another manager's was in the way."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return await transactions.drive(self._together(transactions, entries))
            except _SpoiltError as error:
                if isinstance(error.__cause__, ConnectionLostError):
                    raise error.__cause__ from error
                if not isinstance(error.__cause__, ConflictError) or attempt == _ATTEMPTS:
                    raise
            except ConflictError:
                if attempt == _ATTEMPTS:
                    raise
            await asyncio.sleep(random.uniform(0, _PAUSE * attempt))  # noqa: S311 -- spreads loads, guards nothing
        raise AssertionError  # the last attempt returns or raises

    async def _together(self, transactions: Transactions, entries: Sequence[Entry]) -> Hints:
        """Run commands in one transaction; raise what made it void."""
        try:
            tx = transactions.begin()
            for entry in entries:
                await self._run(transactions, tx, entry)
            return transactions.commit(tx)
        except BaseException:
            transactions.rollback()
            raise

    async def _run(self, transactions: Transactions, tx: UnitOfWork, entry: Entry) -> None:
        """Run one command and keep its result, or its refusal."""
        before = transactions.changes(), tx.marks
        entry.error = None
        try:
            result = entry.command(tx)
            entry.value = await _exhaust(result) if isinstance(result, GeneratorType) else result
        except ManagerError as error:
            if isinstance(error, StoreUnavailableError) or before != (transactions.changes(), tx.marks):
                raise _SpoiltError from error
            entry.error = error
        except Exception as error:
            raise _SpoiltError from error


async def _exhaust(bulk: Bulk[T]) -> T:
    try:
        while True:
            next(bulk)
            await asyncio.sleep(0)
    except StopIteration as end:
        value: T = end.value
        return value
    finally:
        bulk.close()
