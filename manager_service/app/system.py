import random
import time

import uuid_utils

from manager_service.domain.model import Instant, Span

# Unlike CLOCK_MONOTONIC it goes on while the machine sleeps.
_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_NANOS_PER_MICRO = 1_000


class SystemClock:
    """The clocks of this machine."""

    def wall(self) -> Instant:
        """Return the wall clock; it may step."""
        return time.time_ns() // _NANOS_PER_MICRO

    def monotonic(self) -> Span:
        """Return microseconds since the machine started; never falls, goes on while it sleeps."""
        return time.clock_gettime_ns(_STEADY) // _NANOS_PER_MICRO


class SystemIds:
    """Ids and chance of this machine."""

    def new_id(self) -> str:
        """Return a new UUID of version 7 in canonical text form."""
        return str(uuid_utils.uuid7())

    def random(self) -> float:
        """Return a random number from 0 up to 1."""
        return random.random()  # noqa: S311 - spreads loads, guards nothing
