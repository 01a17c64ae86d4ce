import asyncio
from enum import StrEnum, auto


class Signal(StrEnum):
    """Why a wait is over."""

    RUNG = auto()
    ENDED = auto()
    TIMED_OUT = auto()


class Waiter:
    """Lets one call wait for a ring or its end; what came before the wait began is kept."""

    def __init__(self) -> None:
        self._future: asyncio.Future[None] | None = None
        self._rung = False
        self._ended = False

    @property
    def rung(self) -> bool:
        """Whether a ring was not heard yet."""
        return self._rung

    @property
    def ended(self) -> bool:
        """Whether the call is to end."""
        return self._ended

    def ring(self) -> None:
        """Ask the call to look again."""
        self._rung = True
        self._wake()

    def end(self) -> None:
        """Ask the call to end; this lasts."""
        self._ended = True
        self._wake()

    async def wait(self, seconds: float) -> Signal:
        """Wait for a ring, the end, or until the time is over."""
        if not self._rung and not self._ended:
            await self._sleep(seconds)
        if self._ended:
            return Signal.ENDED
        signal = Signal.RUNG if self._rung else Signal.TIMED_OUT
        self._rung = False
        return signal

    async def _sleep(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._future = loop.create_future()
        timer = loop.call_later(max(0.0, seconds), self._wake)
        try:
            await self._future
        finally:
            timer.cancel()
            self._future = None

    def _wake(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)
