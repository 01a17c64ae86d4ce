"""Hundreds of workers share a manager; ``python -m tests.simulation.fleet`` does the same with thousands."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tests.simulation.fleet import mutants
from tests.simulation.fleet.figures import jain, percentile, table
from tests.simulation.fleet.fleet import Size
from tests.simulation.fleet.scenarios import SCENARIOS
from tests.simulation.invariants import ViolationError
from tests.simulation.machine import product_in_simulation

SEED = 1
FEW = {name: Size(sites=8, workers=10, targets=25) for name in ("fairness", "outage", "losses")} | {
    "starvation": SCENARIOS["starvation"].quick
}


@pytest.fixture(autouse=True)
def simulation() -> Iterator[None]:
    with product_in_simulation():
        yield


@pytest.mark.parametrize("name", ["fairness", "starvation", "outage", "losses"])
def test_a_crowd_gets_what_it_is_promised(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    scenario = SCENARIOS[name]

    figures = scenario.run(SEED, scenario.quick)

    with capsys.disabled():
        print(f"\n{name}, seed {SEED}\n{table(figures)}")  # noqa: T201 -- for CI's log


def test_a_seed_gives_the_same_figures_in_every_process() -> None:
    command = [sys.executable, "-m", "tests.simulation.fleet", "--seed", "2", "--scenario", "losses", "--quick"]
    ran = [
        subprocess.run(
            command,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        for hash_seed in ("1", "2")
    ]

    first, second = (one.stdout.splitlines()[1:] for one in ran)
    assert len(first) > 3
    assert first == second


class TestPlantedDefects:
    @pytest.mark.parametrize("scenario", ["fairness", "outage", "losses"])
    def test_without_one_nothing_is_noticed(self, scenario: str) -> None:
        SCENARIOS[scenario].run(SEED, FEW[scenario])

    @pytest.mark.parametrize(
        ("plant", "scenario", "promise"),
        [
            (mutants.first_come_first_served, "fairness", "parent jobs of equal priority share fairly"),
            (mutants.priority_ignored, "fairness", ("an urgent parent job passes", "a lower priority waits")),
            (mutants.limit_of_a_parent_job_ignored, "fairness", "never more live leases than max_parallel"),
            (
                mutants.newcomers_join_the_turn_under_way,
                "starvation",
                ("an older parent job is not overtaken for ever", "no older child waits for long"),
            ),
            (mutants.outages_not_made_up_for, "outage", "no child runs twice because of an outage"),
            (mutants.pauses_without_jitter, "outage", "those who come back do not come all at once"),
            (mutants.leases_not_taken_back, "losses", "what a lost worker held is back in the queue in time"),
            (mutants.any_loss_costs, "losses", "each loss is counted once"),
        ],
        ids=lambda value: getattr(value, "__name__", ""),
    )
    def test_a_missing_guard_is_noticed(
        self,
        plant: Callable[[], AbstractContextManager[Any]],
        scenario: str,
        promise: str | tuple[str, ...],
    ) -> None:
        with plant(), pytest.raises(ViolationError) as broken:
            SCENARIOS[scenario].run(SEED, FEW[scenario])

        assert str(broken.value).startswith(promise), broken.value


class TestFigures:
    def test_equal_shares_are_fair_and_one_share_of_all_is_not(self) -> None:
        assert jain([3.0, 3.0, 3.0]) == pytest.approx(1)
        assert jain([9.0, 0.0, 0.0]) == pytest.approx(1 / 3)

    def test_a_percentile_is_one_of_the_values(self) -> None:
        assert [percentile([3.0, 1.0, 2.0], share) for share in (0.0, 0.5, 0.99)] == [1.0, 2.0, 3.0]
        assert percentile([], 0.5) == 0
