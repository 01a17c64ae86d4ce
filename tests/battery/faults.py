"""What is to befall the processes of a run: drawn from its seed before it begins, so that it can be seen again."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum, auto


class Kind(StrEnum):
    """A fault."""

    KILL_WORKER = auto()
    KILL_MANAGER = auto()
    # Past the lease.
    STOP_WORKER = auto()
    # Past the time that PostgreSQL leaves a transaction idle.
    STOP_MANAGER = auto()
    # Not so long.
    HALT_MANAGER = auto()
    RESTART_FAST = auto()
    RESTART_IMMEDIATE = auto()
    # Connections end, whatever they do; those of all managers.
    CUT = auto()
    # Commits take place, and their callers see an error.
    LOSE_ANSWERS = auto()


_DECK = (
    *(Kind.KILL_WORKER,) * 2,
    *(Kind.KILL_MANAGER,) * 2,
    *(Kind.STOP_WORKER,) * 2,
    Kind.STOP_MANAGER,
    Kind.HALT_MANAGER,
    Kind.RESTART_FAST,
    Kind.RESTART_IMMEDIATE,
    *(Kind.CUT,) * 3,
    *(Kind.LOSE_ANSWERS,) * 4,
)
_LASTS = {
    Kind.STOP_WORKER: (3.0, 5.0),
    Kind.STOP_MANAGER: (10.5, 12.0),
    Kind.HALT_MANAGER: (0.5, 4.0),
}
_APART = (0.3, 2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault, when it comes (in seconds from the beginning), whom it befalls, and how long it lasts."""

    at: float
    kind: Kind
    which: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.at:7.2f} s {self.kind} {self.which} for {self.seconds:.2f} s"


def plan(chance: random.Random, seconds: float) -> Iterator[Fault]:
    """Draw faults for so many seconds; each kind comes once in a while, in any order."""
    at = 0.0
    while True:
        for kind in chance.sample(_DECK, len(_DECK)):
            at += chance.uniform(*_APART)
            if at > seconds:
                return
            lasts = chance.uniform(*_LASTS.get(kind, (0.0, 0.5)))
            yield Fault(at=at, kind=kind, which=chance.randrange(1_000), seconds=lasts)
