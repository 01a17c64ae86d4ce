"""The lock that keeps a second manager off a store's file."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from manager_service.domain.errors import StoreInUseError


class Lock:
    """Keeps a second manager off the file.

    The lock lies on a file beside the store: closing any descriptor of the store itself would drop SQLite's own
    locks. The kernel releases it when the process dies, however it dies; an orderly close removes the file.
    """

    def __init__(self, store: Path) -> None:
        self._path = store.with_name(store.name + ".lock")
        self._descriptor = self._take(store)

    def _take(self, store: Path) -> int:
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(descriptor)
                raise StoreInUseError(str(store)) from error
            if self._is_named(descriptor):
                return descriptor
            os.close(descriptor)

    def _is_named(self, descriptor: int) -> bool:
        """Tell whether the locked file is still the one at the path: its holder may have removed it meanwhile."""
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(descriptor), self._path.stat())
        return False

    def release(self) -> None:
        """Remove the file, then let go of it."""
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)
