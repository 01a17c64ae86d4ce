import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from worker_service.domain.errors import TargetBusyError

_ATTEMPTS = 20


def lock_directory() -> Path:
    """The folder of this user's lock files.

    Its path is fixed: two workers whose ``TMPDIR`` differs must still meet.
    """
    return Path(f"/tmp/overhaul-locks-{os.geteuid()}")  # noqa: S108 - owner and mode are checked before use


@contextmanager
def hold(key: str, directory: Path | None = None) -> Iterator[None]:
    """Hold the file that ``key`` names against every other operation of this user on this host.

    An operation is many statements, and SQLite's own lock lasts for one, so a ``flock`` spans them. It lies
    away from the database and is removed at the end; the kernel drops it when the worker dies.

    Raises:
        TargetBusyError: another operation holds it.
        OSError: the lock file cannot be made.
    """
    path = f"{_prepared(directory or lock_directory())}/{key.replace('/', '_')}"
    descriptor = _acquire(path)
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108 - a string, as below: paths as objects cost as much as the lock
        os.close(descriptor)


def _prepared(directory: Path) -> Path:
    try:
        found = os.lstat(directory)
    except FileNotFoundError:
        directory.mkdir(mode=0o700, exist_ok=True)
        found = os.lstat(directory)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(f"{directory} is not a folder of this user's own: remove it.")
    return directory


def _acquire(path: str) -> int:
    for _ in range(_ATTEMPTS):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise TargetBusyError("Another operation of Overhaul runs on this database file.") from error
        if _is_still(path, descriptor):
            return descriptor
        # Its last holder removed the file between our open and our lock: this one guards nothing.
        os.close(descriptor)
    raise TargetBusyError("Other operations of Overhaul keep taking this database file.")


def _is_still(path: str, descriptor: int) -> bool:
    try:
        return os.stat(path).st_ino == os.fstat(descriptor).st_ino  # noqa: PTH116 - see above
    except FileNotFoundError:
        return False
