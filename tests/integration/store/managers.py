"""Several managers over one job store, and ways to make their transactions meet."""

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from manager_service.domain.errors import ManagerError, StoreUnavailableError
from manager_service.domain.ports import JobStore
from tests.factories import World
from tests.integration.store.integrity import check_integrity


@dataclass(slots=True)
class Managers:
    """Managers of one job store, each with its own connections."""

    url: str
    worlds: Sequence[World]

    def __iter__(self) -> Iterator[World]:
        return iter(self.worlds)

    async def check(self) -> None:
        """Show that the invariants hold, whichever manager is asked."""
        check_integrity(self.url)

    async def close(self) -> None:
        for world in self.worlds:
            await world.store.close()


class AnyStore:
    """A job store that is another manager's at each call, as a load balancer makes it."""

    def __init__(self, stores: Sequence[JobStore], chance: random.Random) -> None:
        self._stores = stores
        self._chance = chance

    def __getattr__(self, verb: str) -> Any:
        return getattr(self._chance.choice(self._stores), verb)


class Meeting:
    """Holds transactions up until another one has come as far; who is kept from that is not waited for."""

    def __init__(self, parties: int = 2, patience: float = 1.0) -> None:
        self._barrier = threading.Barrier(parties)
        self._patience = patience

    def wait(self) -> None:
        with suppress(threading.BrokenBarrierError):
            self._barrier.wait(self._patience)

    @contextmanager
    def before(self, *places: tuple[Any, str]) -> Iterator[None]:
        """Let transactions meet before they call a function."""
        with self._around(places, self._then):
            yield

    @contextmanager
    def after(self, *places: tuple[Any, str]) -> Iterator[None]:
        """Let transactions meet when they have called a function."""
        with self._around(places, self._first):
            yield

    @contextmanager
    def _around(self, places: Sequence[tuple[Any, str]], wrap: Callable[[Any], Any]) -> Iterator[None]:
        patches = [patch.object(owner, name, wrap(getattr(owner, name))) for owner, name in places]
        for one in patches:
            one.start()
        try:
            yield
        finally:
            for one in patches:
                one.stop()

    def _then(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def met(*args: Any, **kwargs: Any) -> Any:
            self.wait()
            return function(*args, **kwargs)

        return met

    def _first(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def met(*args: Any, **kwargs: Any) -> Any:
            value = function(*args, **kwargs)
            self.wait()
            return value

        return met


@contextmanager
def preceded(owner: Any, name: str, call: Callable[[], Coroutine[Any, Any, Any]]) -> Iterator[None]:
    """Let a call go before the first use of a function, which a transaction of another manager makes."""
    loop, function, done = asyncio.get_running_loop(), getattr(owner, name), threading.Event()

    def second(*args: Any, **kwargs: Any) -> Any:
        if not done.is_set():
            done.set()
            asyncio.run_coroutine_threadsafe(call(), loop).result()
        return function(*args, **kwargs)

    with patch.object(owner, name, second):
        yield
    assert done.is_set()


async def at_once(*calls: Awaitable[Any]) -> list[Any]:
    """Make calls at once and return what each answered or was refused with; a refusal for others is none."""
    answers = await asyncio.gather(*calls, return_exceptions=True)
    for answer in answers:
        assert not isinstance(answer, StoreUnavailableError), answer
        assert not isinstance(answer, BaseException) or isinstance(answer, ManagerError), answer
    return answers
