import asyncio
import math
import random
from collections.abc import Awaitable, Callable

Sleep = Callable[[float], Awaitable[None]]


class Backoff:
    """Full-jitter exponential backoff: each pause is drawn evenly from nothing to a doubling ceiling.

    Args:
        base: the first ceiling, in seconds.
        cap: the highest ceiling, in seconds.
        draw: returns a number in [0, 1).
        sleep: waits for some seconds.
    """

    def __init__(
        self,
        *,
        base: float = 0.1,
        cap: float = 5.0,
        draw: Callable[[], float] = random.random,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._base = base
        self._cap = cap
        self._draw = draw
        self._sleep = sleep
        self._failures = 0

    @property
    def failures(self) -> int:
        """How many pauses there were since the last success."""
        return self._failures

    def reset(self) -> None:
        """Begin anew after a success."""
        self._failures = 0

    async def pause(self, *, at_most: float = math.inf) -> None:
        """Wait before the next try, for no longer than so many seconds."""
        ceiling = min(at_most, self._cap, self._base * 2 ** min(self._failures, 16))
        self._failures += 1
        await self._sleep(ceiling * self._draw())
