"""When no manager ran, as nobody but the simulation can know."""

from manager_service.domain.fleet import Timing
from manager_service.domain.ports import Clock


class Outages:
    """The spans in which no manager could renew a lease.

    A store that is opened makes up for any outage, one that a manager slept through for all that last longer than
    two heartbeat intervals.
    """

    def __init__(self, clock: Clock, timing: Timing) -> None:
        self._clock = clock
        self._least_pause = 2 * timing.heartbeat_interval
        self._begin: int | None = None
        self._spans: list[tuple[int, int]] = []

    def begin(self) -> None:
        """Note that no manager runs from now on."""
        if self._begin is None:
            self._begin = self._clock.monotonic()

    def end(self, *, paused: bool = False) -> None:
        """Note that a manager runs again."""
        if self._begin is None:
            return
        span, self._begin = (self._begin, self._clock.monotonic()), None
        if not paused or span[1] - span[0] > self._least_pause:
            self._spans.append(span)

    def since(self, moment: int) -> int:
        """Return the length of all outages since a moment."""
        return sum(end - max(begin, moment) for begin, end in self._spans if end > moment)
