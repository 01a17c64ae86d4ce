"""One database of 200 MB: `overhaul run` beside the same statements by the same library in one process."""

import filecmp
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.figures import RUNS, Figure

_MEGABYTES = 200
_START_UP_SECONDS = 2.0
_RAW = """
import json, sys, time, apsw
connection = apsw.Connection(sys.argv[1], flags=apsw.SQLITE_OPEN_READWRITE)
begun = time.perf_counter()
for statement in json.load(sys.stdin):
    list(connection.execute(statement))
connection.close()
print(time.perf_counter() - begun)
"""


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source.db"
        make = [sys.executable, "benchmarks/make_sample.py", str(source), "--megabytes", str(_MEGABYTES)]
        subprocess.run(make, check=True, capture_output=True)
        pairs = [_pair(source) for _ in range(RUNS)]
    raw, ours, same = zip(*pairs, strict=True)
    allowed = 1.15 * median(raw) + _START_UP_SECONDS
    return [
        Figure(name="size of the database", values=[_MEGABYTES], unit="MB"),
        Figure(name="raw library calls", values=raw, unit="s"),
        Figure(name="overhaul run", values=ours, unit="s", aim=f"at most {allowed:.2f}: 1.15 x raw + 2 s"),
        Figure(name="overhaul run / raw", values=[o / r for o, r in zip(ours, raw, strict=True)], unit="x"),
        Figure(name="files that came out byte-identical, of 1", values=[float(s) for s in same], unit=""),
    ]


def _pair(source: Path) -> tuple[float, float, bool]:
    """Maintain two copies in turn; return both times in seconds, and whether the files are the same bytes."""
    raw, ours = source.with_name("raw.db"), source.with_name("ours.db")
    for copy in (raw, ours):
        shutil.copy(source, copy)
    statements = _plan(ours)
    raw_seconds = _time_raw(raw, statements)
    ours_seconds = _time_ours(ours)
    return raw_seconds, ours_seconds, filecmp.cmp(raw, ours, shallow=False)


def _plan(database: Path) -> list[str]:
    command = [sys.executable, "-m", "worker_service", "plan", "--target", str(database), "--output", "json"]
    plan = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    [target] = plan["targets"]
    return [statement for operation in target["operations"] for statement in operation["statements"]]


def _time_raw(database: Path, statements: list[str]) -> float:
    command = [sys.executable, "-c", _RAW, str(database)]
    done = subprocess.run(command, input=json.dumps(statements), check=True, capture_output=True, text=True)
    return float(done.stdout)


def _time_ours(database: Path) -> float:
    program = Path(sys.executable).with_name("overhaul")
    begun = time.perf_counter()
    subprocess.run([program, "run", str(database), "--output", "json"], check=True, capture_output=True)
    return time.perf_counter() - begun
