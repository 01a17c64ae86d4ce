"""Doubles of the manager's ports."""

import random
from dataclasses import dataclass, field
from uuid import UUID

from manager_service.domain.model import SECOND, Instant, Span

START: Instant = 1_800_000_000 * SECOND


@dataclass(slots=True)
class FakeClock:
    """A clock that moves when it is told to."""

    wall_time: Instant = START
    monotonic_time: Span = 5_000 * SECOND

    def wall(self) -> Instant:
        return self.wall_time

    def monotonic(self) -> Span:
        return self.monotonic_time

    def pass_time(self, span: Span) -> None:
        """Let both clocks go on, as time does."""
        self.wall_time += span
        self.monotonic_time += span

    def step(self, span: Span) -> None:
        """Set the wall clock forward or back, as an administrator does."""
        self.wall_time += span

    def reboot(self) -> None:
        """Begin the monotonic clock anew, as a machine does."""
        self.monotonic_time = SECOND


@dataclass(slots=True)
class CountingIds:
    """Ids that count, and chance that repeats."""

    count: int = 0
    chance: random.Random = field(default_factory=lambda: random.Random(7))

    def new_id(self) -> str:
        self.count += 1
        return str(UUID(int=(0x0190_0000_0000 << 80) | (7 << 76) | (2 << 62) | self.count))

    def random(self) -> float:
        return self.chance.random()
