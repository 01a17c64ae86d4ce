"""A manager holds no more after an hour of traffic than after a third of it, and only so much of anything."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tests.simulation.fleet import mutants
from tests.simulation.fleet.figures import table
from tests.simulation.fleet.fleet import Size
from tests.simulation.fleet.traffic import QUICK, Span, busy
from tests.simulation.invariants import ViolationError
from tests.simulation.machine import product_in_simulation

SEED = 1
FEW = Size(sites=1, workers=6, targets=10)
TWENTY_MINUTES = Span(lasts=1_200.0, kept=60.0)


@pytest.fixture(autouse=True)
def simulation() -> Iterator[None]:
    with product_in_simulation():
        yield


def test_the_memory_of_a_manager_is_flat_over_an_hour(capsys: pytest.CaptureFixture[str]) -> None:
    figures = busy(SEED, QUICK)

    with capsys.disabled():
        print(f"\ntraffic, seed {SEED}\n{table(figures)}")  # noqa: T201 -- for CI's log


@pytest.mark.parametrize(
    ("plant", "promise"),
    [
        (mutants.silent_sessions_not_forgotten, "what a manager holds is bounded: Sessions._"),
        (mutants.polls_not_forgotten, "what a manager holds is bounded: Polls._seen"),
        (mutants.heartbeats_not_forgotten, "what a manager holds is bounded: Heartbeats._heard"),
        (mutants.offers_not_forgotten, "what a manager holds is bounded: KeptOffers._kept"),
        (mutants.progress_not_forgotten, "what a manager holds is bounded: Paces._paces"),
        (mutants.pages_not_forgotten, ("what a manager holds", "a manager's memory is flat")),
        (mutants.followers_not_forgotten, "what a manager holds is bounded: ProgressHub._followed"),
        (mutants.reports_kept, "a manager's memory is flat"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_not_forgotten_is_noticed(plant: Callable[[], AbstractContextManager[Any]], promise: str) -> None:
    with plant(), pytest.raises(ViolationError) as broken:
        busy(SEED, FEW, TWENTY_MINUTES)

    assert str(broken.value).startswith(promise), broken.value
