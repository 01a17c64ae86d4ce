"""Programs that maintain a database, each timed as a whole, from its start to its end."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.services import Service, address_of, start_manager

_PROGRAM = Path(sys.executable).with_name("overhaul")


def timed(*commands: Sequence[str | Path], given: Mapping[str, str] | None = None) -> float:
    """Run commands one after the other and return the seconds that took; one that fails ends the benchmark."""
    environment = {**os.environ, **(given or {})}
    began = time.perf_counter()
    for command in commands:
        ran = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
        if ran.returncode:
            sys.exit(
                f"{' '.join(map(str, command))} ended with {ran.returncode}:\n{ran.stdout[-2000:]}{ran.stderr}"
            )
    return time.perf_counter() - began


def overhaul_run(url: str, *options: str) -> list[str | Path]:
    """Return the command that maintains a database by Overhaul, two operations at once."""
    return [_PROGRAM, "run", url, "--slots", "2", "--output", "json", *options]


@contextmanager
def overhaul_serving(url: str, *options: str, throttle: str = "") -> Iterator[list[str | Path]]:
    """Run a manager and a worker of a database, and lend the command by which they maintain it.

    The store keeps what was answered over the end of a process; after a power failure the last children run again.
    """
    quiet = ("--log-level", "warning")
    with (
        tempfile.TemporaryDirectory() as folder,
        start_manager(Path(folder) / "jobs.db", *quiet, "--synchronous", "normal") as manager,
    ):
        address = address_of(manager)
        file = Path(folder) / "worker.toml"
        throttled = f"[targets.throttle]\n{throttle}\n" if throttle else ""
        file.write_text(f'[[targets]]\nname = "db"\nurl = "{url}"\n{throttled}')
        at_once = ("--slots", "2", "--max-parallel", "2")
        with Service("worker_service", ["--manager", address, "--config", str(file), *at_once, *quiet]):
            watched = ["--target", "db", "--max-parallel", "2", "--watch", "--output", "json"]
            yield [_PROGRAM, "create", "--manager", address, *watched, *options]
