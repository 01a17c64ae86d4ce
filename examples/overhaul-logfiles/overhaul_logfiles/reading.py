"""Reading files piece by piece, so that an operation can be stopped, and holding them against other workers."""

import fcntl
import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

from worker_service.domain.errors import TargetBusyError

PIECE = 1 << 20

Step = Callable[[int], None]
"""Called after each piece with its bytes: tells the progress, and raises ``OperationCancelledError`` to stop."""


class Readable(Protocol):
    """A file, or what is packed in one."""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes, at most so many; none at the end."""


@contextmanager
def held(path: Path) -> Iterator[IO[bytes]]:
    """Open a file and hold it against every other worker of this host.

    The manager grants no two leases with one key. But a worker that was cut off from it may still be at work when
    its lease has long been another's, so the lock is in the target; the kernel takes it back from who dies.

    Raises:
        TargetBusyError: another one holds it, or has just made an archive of it.
        OSError: it cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TargetBusyError(f"Another worker holds {path.name}.") from error
        if not os.path.samestat(os.fstat(file.fileno()), path.lstat()):
            raise TargetBusyError(f"{path.name} was replaced while it was opened.")
        yield file


def pieces(file: Readable, step: Step, most: int = sys.maxsize) -> Iterator[bytes]:
    """Yield what is in a file, piece by piece, at most so many bytes: a writer may be as fast as the reader."""
    while piece := file.read(min(PIECE, most)):
        most -= len(piece)
        yield piece
        step(len(piece))


def digest(file: Readable, step: Step, most: int = sys.maxsize) -> str:
    """Return a checksum of what is in a file."""
    found = hashlib.sha256()
    for piece in pieces(file, step, most):
        found.update(piece)
    return found.hexdigest()
