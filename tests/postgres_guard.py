"""Ends a private PostgreSQL server and removes its folder as soon as whoever started it is gone.

It waits for the end of its standard input, of which the owner alone holds the other end. That comes when the owner
closes it, and when the owner is killed.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

_PATIENCE = 10.0


def main(folder: Path) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    segment = _shared_memory(folder)
    _end(folder)
    if segment:
        subprocess.run(["ipcrm", "--shmem-id", segment], check=False, capture_output=True)
    shutil.rmtree(folder)


def processes_in(folder: Path) -> list[int]:
    """Return the ids of the processes that work in a folder: a server's postmaster, its children, an `initdb`."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _is_in(folder, entry)]


def _is_in(folder: Path, process: Path) -> bool:
    try:
        return (process / "cwd").readlink().is_relative_to(folder)
    except OSError:
        return False


def _shared_memory(folder: Path) -> str:
    """Return the id of the segment that a server frees when it ends in good order, and not when it is killed."""
    lines = [line for file in folder.glob("*/postmaster.pid") for line in file.read_text().splitlines()]
    return lines[6].split()[-1] if len(lines) > 6 else ""


def _end(folder: Path) -> None:
    """End whatever works in the folder, by force if it takes long."""
    begun = time.monotonic()
    while alive := processes_in(folder):
        number = signal.SIGQUIT if time.monotonic() < begun + _PATIENCE else signal.SIGKILL
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        time.sleep(0.02)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
