"""Overhaul, pgqueuer and procrastinate in turn, round by round, so that a slow minute meets all of them.

Jobs do nothing, and are enqueued by the thousand. As a core's speed may change from minute to minute and others
may be at work on it, rates stand beside the CPU seconds that they cost, and ratios are taken round by round.
"""

import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

from benchmarks.figures import percentile
from benchmarks.peers.contender import WORKERS, Contender
from benchmarks.peers.overhaul import Overhaul
from benchmarks.peers.peer import Peer
from tests.postgres import PostgresServer

RATE = "jobs a second"
CPU = "CPU seconds per 1,000 jobs"
OTHERS = "cores of others"
P50 = "dispatch, median"
P99 = "dispatch, 99th percentile"
# So many that each takes a few seconds.
_CHILDREN = {1: 3_000, 10: 10_000, 100: 20_000}
_PGQUEUER_JOBS = {1: 4_000, 10: 20_000, 100: 40_000}
_PROCRASTINATE_JOBS = {1: 1_500, 10: 2_000}
_SAMPLES = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A contender whose workers take so many jobs at a time."""

    contender: Contender
    wide: int

    def __str__(self) -> str:
        return f"{self.contender.name}, {self.contender.width} {self.wide}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """What was measured, one value a round: each figure of each entry, and the CPU seconds by who spent them."""

    setting: str
    figures: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    spenders: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))


def contest(rounds: int, store: str) -> Results:
    """Measure every entry once a round, on a server as `initdb` leaves it, which waits for the disk."""
    with PostgresServer(durable=True) as server:
        machine = f"{os.cpu_count()} cores, PostgreSQL {server.version}"
        results = Results(setting=f"{rounds} rounds, {machine}, {WORKERS} workers, Overhaul on {store}")
        overhaul = Overhaul(_CHILDREN, server, store)
        pgqueuer = Peer("pgqueuer", "batch", _PGQUEUER_JOBS, server)
        procrastinate = Peer("procrastinate", "concurrency", _PROCRASTINATE_JOBS, server)
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
            for wide in _CHILDREN:
                entries = [Entry(contender=contender, wide=wide) for contender in (overhaul, pgqueuer)]
                if wide in _PROCRASTINATE_JOBS:
                    entries.append(Entry(contender=procrastinate, wide=wide))
                for entry in _rotated(entries, number):
                    _measure_lifecycle(entry, results)
            entries = [
                Entry(contender=overhaul, wide=10),
                Entry(contender=pgqueuer, wide=10),
                Entry(contender=procrastinate, wide=1),
            ]
            for entry in _rotated(entries, number):
                _measure_latency(entry, results)
    return results


def _rotated(entries: Sequence[Entry], number: int) -> Iterator[Entry]:
    """Begin with another one each round."""
    for place in range(len(entries)):
        yield entries[(place + number) % len(entries)]


def _measure_lifecycle(entry: Entry, results: Results) -> None:
    lifecycle = entry.contender.lifecycle(entry.wide)
    results.figures[RATE, str(entry)].append(lifecycle.rate)
    results.figures[CPU, str(entry)].append(lifecycle.total_cpu)
    results.figures[OTHERS, str(entry)].append(lifecycle.others)
    for who, spent in lifecycle.cpu.items():
        results.spenders[str(entry), who].append(spent)


def _measure_latency(entry: Entry, results: Results) -> None:
    latencies = entry.contender.latencies(entry.wide, _SAMPLES)
    results.figures[P50, str(entry)].append(median(latencies))
    results.figures[P99, str(entry)].append(percentile(latencies, 99))
