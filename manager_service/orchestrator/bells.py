import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from manager_service.domain.errors import ShuttingDownError
from manager_service.domain.ports import IdSource

_LOOKS_PER_SECOND = 200


class Bell:
    """Wakes one reader; a ring that came before the wait began is kept."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Ask the reader to look again."""
        self._event.set()

    async def wait(self, seconds: float | None) -> None:
        """Wait for a ring, or until the time is over; ``None`` waits for a ring alone."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return
        self._event.clear()


class Bells:
    """The bells of those who follow something, by what they follow.

    Args:
        ids: spreads the looks of those who were not rung.
    """

    def __init__(self, ids: IdSource) -> None:
        self._ids = ids
        self._hung: dict[str, set[Bell]] = {}
        self._count = 0
        self._stopping = False

    @contextmanager
    def hang(self, key: str) -> Iterator[Bell]:
        """Hang up a bell; what happens from now on rings it."""
        bell = Bell()
        self._hung.setdefault(key, set()).add(bell)
        self._count += 1
        try:
            yield bell
        finally:
            self._count -= 1
            self._hung[key].discard(bell)
            if not self._hung[key]:
                del self._hung[key]

    def ring(self, keys: Iterable[str]) -> None:
        """Ring the bells of all these keys."""
        if self._hung:
            for key in keys:
                for bell in self._hung.get(key, ()):
                    bell.ring()

    def stop(self) -> None:
        """Ring every bell; from now on ``check`` raises."""
        self._stopping = True
        self.ring(tuple(self._hung))

    def check(self) -> None:
        """Raise ``ShuttingDownError`` once the manager is stopping."""
        if self._stopping:
            raise ShuttingDownError

    def patience(self) -> float:
        """Return the seconds until a reader looks unrung, for a hint may be missed; all together look seldom."""
        return (1 + self._ids.random()) * max(1.0, self._count / _LOOKS_PER_SECOND)
