"""Where a private server lives: a folder, and a port that nobody else is given."""

import os
import random
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HOST = "127.0.0.1"
PATIENCE = 60.0
_LOOK_EVERY = 0.01
# Below those that the kernel hands out by itself: while the server is down nobody else is given its port, and a
# client that tries it again and again is not connected to itself.
_PORTS = range(20_000, 32_000)
_MEMORY = Path("/dev/shm")
_ENOUGH = 2 * 2**30


class Port:
    """A port of one server from its first start to its end, also while it is down.

    Whoever starts servers beside it, in this process or another, claims ports the same way: by a name that the
    kernel lends to one, and takes back when its owner ends.
    """

    def __init__(self) -> None:
        for number in random.sample(_PORTS, len(_PORTS)):
            claim = socket.socket(socket.AF_UNIX)
            try:
                claim.bind(f"\0overhaul-port-{number}")
                with socket.socket() as probe:
                    probe.bind((HOST, number))
            except OSError:
                claim.close()
                continue
            self.number = number
            self._claim = claim
            return
        raise AssertionError("no port is free")

    def close(self) -> None:
        """Give it back."""
        self._claim.close()


def new_folder(prefix: str, *, durable: bool = False) -> Path:
    """Make a folder: in memory, for a server that need not survive the machine, if there is enough of it.

    A database is some hundred files. To make one takes 20 ms in memory and 100 to 500 on a busy disk, even where
    nothing is synced.
    """
    return Path(tempfile.mkdtemp(prefix=prefix, dir=None if durable or not _is_fit(_MEMORY) else _MEMORY))


def wait_until(done: Callable[[], bool], failure: str) -> None:
    """Wait for what a server does in its own time."""
    deadline = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > deadline:
            raise AssertionError(failure)
        time.sleep(_LOOK_EVERY)


def _is_fit(folder: Path) -> bool:
    """Tell whether there is room for servers, which sometimes are run from there too."""
    if not os.access(folder, os.W_OK):
        return False
    found = os.statvfs(folder)
    return not found.f_flag & os.ST_NOEXEC and found.f_bavail * found.f_frsize > _ENOUGH
