from collections import deque
from collections.abc import Sequence

import structlog

from manager_service.domain.durations import Completion
from manager_service.domain.errors import ManagerError
from manager_service.domain.model import MILLISECOND, SECOND, Span
from manager_service.domain.ports import History

log = structlog.get_logger("manager.orchestrator")

LEARN_EVERY: Span = 5 * SECOND

_BATCH = 200
# So many quick ones are noted in a row, and so many more in each turn.
_QUICK_ONES = 500
_QUICK_ONES_MORE = 100
_MOST = 10_000
_QUICK: Span = 100 * MILLISECOND


class Durations:
    """Collects how long children took, and has the store keep it now and then, in batches.

    Whoever reports waits for none of this, and a manager that is killed loses what the last seconds taught. Of
    children that took a moment, all of a job of some hundred tables are noted, but few of a store that is busy
    with such ones all the time: there is little to be learned from them.

    Args:
        store: keeps it.
    """

    def __init__(self, store: History) -> None:
        self._store = store
        self._noted: deque[Completion] = deque(maxlen=_MOST)
        self._quick_ones = _QUICK_ONES

    def note(self, completions: Sequence[Completion]) -> None:
        """Note children that completed."""
        for item in completions:
            if item.span < _QUICK:
                if not self._quick_ones:
                    continue
                self._quick_ones -= 1
            self._noted.append(item)

    async def turn(self) -> None:
        """Have what was noted kept."""
        self._quick_ones = min(_QUICK_ONES, self._quick_ones + _QUICK_ONES_MORE)
        while self._noted:
            batch = [self._noted.popleft() for _ in range(min(_BATCH, len(self._noted)))]
            await self._store.learn(batch)

    async def finish(self) -> None:
        """Have the last of it kept; a store that is away by then is no reason to wait."""
        try:
            await self.turn()
        except ManagerError as error:
            log.warning("the last durations are lost", why=str(error))
