"""Programs that maintain a database, each timed as a whole, from its start to its end."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path


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
    program = Path(sys.executable).with_name("overhaul")
    return [program, "run", url, "--slots", "2", "--output", "json", *options]
