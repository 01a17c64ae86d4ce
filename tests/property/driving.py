"""Run the machine over many lives of a store, always the same ones."""

import shutil
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from manager_service.domain.fleet import Timing
from manager_service.store import open_store
from tests.doubles import CountingIds, FakeClock
from tests.property.machine import StoreMachine
from tests.property.rig import Rig

STEPS = 50
# Hypothesis varies the first ten lives that it thought up rather than thinking up more; these are to be different.
LIVES_PER_SEED = 10

NewUrl = Callable[[], str]


def sqlite_stores(directory: Path) -> NewUrl:
    """Make stores by copying an empty one, which is quicker than making its tables anew."""
    empty, numbers = directory / "empty.db", count()
    open_store(
        f"sqlite:///{empty}", clock=FakeClock(), ids=CountingIds(), timing=Timing(), synchronous="normal"
    )._backend.close()  # type: ignore[attr-defined]  # no loop: nothing queues

    def new_url() -> str:
        store = directory / f"{next(numbers)}.db"
        shutil.copyfile(empty, store)
        return f"sqlite:///{store}"

    return new_url


def drive(new_url: NewUrl, *, seeds: range, shrink: bool = False) -> Counter[str]:
    """Compare stores with the oracle and return what was seen; the first disagreement is raised.

    Shrinking a disagreement takes minutes. Without it the steps that led there are printed all the same.
    """
    seen, rigs = Counter[str](), list[Rig]()

    def opened(rig: Rig) -> None:
        seen.update(rigs.pop().seen if rigs else ())
        rigs.append(rig)

    class Machine(StoreMachine):
        def __init__(self) -> None:
            super().__init__(new_url, opened)

    for number in seeds:
        run_state_machine_as_test(
            seed(number)(Machine),
            settings=settings(
                max_examples=LIVES_PER_SEED,
                stateful_step_count=STEPS,
                database=None,
                deadline=None,
                phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
    opened(rigs[0])
    return seen
