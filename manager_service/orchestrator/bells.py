import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from manager_service.domain.errors import ShuttingDownError
from manager_service.domain.ports import IdSource

_LOOKS_PER_SECOND = 200
# Who follows is rung at once after a quiet moment, and while much happens with pauses that nobody notices: of many
# readers each so often that there is time for the rest.
_SHORTEST_PAUSE = 0.03
_RUNG_PER_SECOND = 2_000
_LONGEST_PAUSE = 1.0


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


class _Rope:
    """The bells that hang on one key, and when they were rung."""

    __slots__ = ("bells", "due", "mark", "rung")

    def __init__(self) -> None:
        self.bells: set[Bell] = set()
        self.mark = object()
        self.rung = 0.0
        self.due: asyncio.TimerHandle | None = None

    def pull(self, now: float) -> None:
        """Ring them."""
        self.rung, self.due = now, None
        for bell in self.bells:
            bell.ring()

    def let_go(self) -> None:
        """Ring them no more."""
        if self.due is not None:
            self.due.cancel()


class Bells:
    """The bells of those who follow something, by what they follow.

    Those of one key are rung together and with pauses, so that they can be told in one go what happened meanwhile.

    Args:
        ids: spreads the looks of those who were not rung.
    """

    def __init__(self, ids: IdSource) -> None:
        self._ids = ids
        self._hung: dict[str, _Rope] = {}
        self._count = 0
        self._stopping = False

    @contextmanager
    def hang(self, key: str) -> Iterator[Bell]:
        """Hang up a bell; what happens from now on rings it."""
        bell = Bell()
        rope = self._hung.setdefault(key, _Rope())
        rope.bells.add(bell)
        self._count += 1
        try:
            yield bell
        finally:
            self._count -= 1
            rope.bells.discard(bell)
            if not rope.bells:
                rope.let_go()
                del self._hung[key]

    def mark(self, key: str) -> object:
        """Return what is the same object as before, if nothing happened and a bell hung on the key meanwhile."""
        rope = self._hung.get(key)
        return object() if rope is None else rope.mark

    def ring(self, keys: Iterable[str]) -> None:
        """Ring the bells of all these keys, at once or after a pause."""
        if self._hung:
            for key in keys:
                if (rope := self._hung.get(key)) is not None:
                    self._ring(rope)

    def _ring(self, rope: _Rope) -> None:
        rope.mark = object()
        if rope.due is not None:
            return
        loop = asyncio.get_running_loop()
        now, due = loop.time(), rope.rung + self._pause()
        if due <= now:
            rope.pull(now)
        else:
            rope.due = loop.call_at(due, rope.pull, due)

    def _pause(self) -> float:
        return min(_LONGEST_PAUSE, max(_SHORTEST_PAUSE, self._count / _RUNG_PER_SECOND))

    def stop(self) -> None:
        """Ring every bell; from now on ``check`` raises."""
        self._stopping = True
        for rope in self._hung.values():
            rope.let_go()
            rope.pull(rope.rung)

    def check(self) -> None:
        """Raise ``ShuttingDownError`` once the manager is stopping."""
        if self._stopping:
            raise ShuttingDownError

    def patience(self) -> float:
        """Return the seconds until a reader looks unrung, for a hint may be missed; all together look seldom."""
        return (1 + self._ids.random()) * max(1.0, self._count / _LOOKS_PER_SECOND)
