"""Thousands of worlds in which everything goes wrong; after every step the invariants hold."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tests.simulation import mutants
from tests.simulation.machine import product_in_simulation
from tests.simulation.seeds import live
from tests.simulation.shards import live_through

SEEDS = int(os.environ.get("OVERHAUL_SIMULATION_SEEDS", "4000"))
FIRST = int(os.environ.get("OVERHAUL_SIMULATION_FIRST_SEED", "1"))
SECONDS = float(os.environ.get("OVERHAUL_SIMULATION_SECONDS", "105"))
FEWEST = 300


@pytest.mark.timeout(SECONDS + 60)
def test_the_invariants_hold_in_every_world(capsys: pytest.CaptureFixture[str]) -> None:
    lived = live_through(FIRST, SEEDS, seconds=SECONDS)

    with capsys.disabled():
        print(f"\n{lived.seeds} of {SEEDS} seeds from {FIRST} on: {dict(lived.tally)}")  # noqa: T201 -- for CI's log
    assert not lived.failures, "\n".join(lived.failures[:5])
    assert lived.seeds >= min(FEWEST, SEEDS)
    assert lived.tally["managers"] > 2 * lived.seeds
    assert lived.tally["losses"] > lived.seeds / 10
    assert lived.tally["REPORT_STATUS_ALREADY_RECORDED"] > lived.seeds / 10
    assert lived.tally["REPORT_STATUS_STALE"]


class TestReplay:
    def replay(self, seed: int, hash_seed: str) -> str:
        command = [sys.executable, "-m", "tests.simulation", "--seed", str(seed), "--steps", "3000"]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
        return ran.stdout

    def test_a_seed_lives_the_same_life_in_every_process(self) -> None:
        first, second = self.replay(3, "1"), self.replay(3, "2")

        assert len(first.splitlines()) > 100
        assert first == second

    def test_a_failing_seed_tells_how_to_replay_it(self) -> None:
        with product_in_simulation(), mutants.successors_forgotten():
            failure = live(1)

        assert failure is not None
        assert "replay it: python -m tests.simulation --seed 1 --steps" in failure


class TestPlantedDefects:
    @pytest.fixture(autouse=True)
    def simulation(self) -> Iterator[None]:
        with product_in_simulation():
            yield

    @pytest.mark.parametrize(
        ("plant", "invariant"),
        [
            (mutants.fence_by_worker_only, "a report is recorded once"),
            (
                mutants.outages_not_made_up_for,
                ("no lease expires by an outage", "everything becomes terminal"),
            ),
            (mutants.successors_forgotten, "a pending child queues or has a predecessor"),
            (mutants.parent_decided_outside_the_transaction, "the counts are what the children are"),
            (
                mutants.expiry_filtered_by_id_only,
                ("no lease expires by an outage", "an attempt ends under the lease it was granted"),
            ),
            (mutants.locks_not_taken, "no two conflicting lock keys are live"),
            (mutants.attempts_handed_out_again, "an attempt number is never handed out again"),
        ],
        ids=lambda value: getattr(value, "__name__", ""),
    )
    def test_a_missing_guard_is_noticed(
        self, plant: Callable[[], AbstractContextManager[Any]], invariant: str | tuple[str, ...]
    ) -> None:
        with plant():
            found = next(filter(None, map(live, range(1, 200))), "nothing was found")

        assert found.startswith(invariant), found
