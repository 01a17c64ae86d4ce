"""How long the programs take to be of use."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.figures import RUNS, Figure
from tests.services import start_manager

_REPEATS = 5


def measure() -> list[Figure]:
    return [
        Figure(name="overhaul --help", values=[_help() for _ in range(RUNS)], unit="ms", aim="under 300"),
        Figure(name="manager ready to serve", values=[_ready() for _ in range(RUNS)], unit="ms", aim="under 1000"),
    ]


def _help() -> float:
    """Return the median time of the program, in milliseconds."""
    program = Path(sys.executable).with_name("overhaul")
    times = []
    for _ in range(_REPEATS):
        begun = time.perf_counter()
        subprocess.run([program, "--help"], check=True, capture_output=True)
        times.append((time.perf_counter() - begun) * 1000)
    return sorted(times)[_REPEATS // 2]


def _ready() -> float:
    """Return the time from the start of the process to its announcement, on a new store, in milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        with start_manager(Path(folder) / "jobs.db"):
            return (time.perf_counter() - begun) * 1000
