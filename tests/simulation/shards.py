"""Many seeds over the processors of this machine, as many as the time allows."""

import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from tests.simulation.machine import product_in_simulation
from tests.simulation.seeds import Tally, live

_MEASURE = "COVERAGE_PROCESS_CONFIG"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lived:
    """What came of some seeds: how many were lived through, what was seen in them, and how the bad ones failed."""

    seeds: int
    tally: Tally
    failures: tuple[str, ...]


def live_through(first: int, seeds: int, *, seconds: float) -> Lived:
    """Live through up to so many seeds from the first on, on every processor, for up to so many seconds."""
    shards = os.cpu_count() or 1
    end = time.time() + seconds
    spawn = multiprocessing.get_context("spawn")
    with _unmeasured(), ProcessPoolExecutor(shards, mp_context=spawn) as pool:
        parts = [pool.submit(_shard, range(first + shard, first + seeds, shards), end) for shard in range(shards)]
        lived = [part.result() for part in parts]
    return Lived(
        seeds=sum(part.seeds for part in lived),
        tally=sum((part.tally for part in lived), Tally()),
        failures=tuple(failure for part in lived for failure in part.failures),
    )


@contextmanager
def _unmeasured() -> Iterator[None]:
    """Keep coverage out of the processes that start meanwhile: it halves the seeds and sees nothing new here."""
    measure = os.environ.pop(_MEASURE, None)
    try:
        yield
    finally:
        if measure is not None:
            os.environ[_MEASURE] = measure


def _shard(seeds: range, end: float) -> Lived:
    count, tally, failures = 0, Tally(), []
    with product_in_simulation():
        for seed in seeds:
            if time.time() > end:
                break
            failure = live(seed, tally=tally)
            count += 1
            if failure is not None:
                failures.append(failure)
    return Lived(seeds=count, tally=tally, failures=tuple(failures))
