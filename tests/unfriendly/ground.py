"""What the tests with unfriendly files share: what is asserted of each, and other processes that are in the way.

Wherever rows are compared, they are read by SQLite from the file as it lies there, after the operation.
"""

import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import apsw

from tests.integration.operations.databases import content, query
from tests.integration.operations.doubles import operation, worker_on
from worker_service.domain.outcome import FailureCategory, Outcome, Result
from worker_service.operations.sqlite.worker import SqliteWorker

ROOT = Path(__file__).parents[2]
PATIENCE = 120.0
NOBODY = 65534
DEFAULTS = ("vacuum", "analyze", "reindex")
CHECKS = ("integrity_check", "quick_check", "foreign_key_check")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a program gets to know of a failure; people read its message."""

    reason: str
    category: FailureCategory
    retryable: bool = False


def told(result: Result) -> Told:
    """Return the failure without its message, which has to be whole sentences and the reason as well."""
    assert result.outcome is Outcome.FAILED, result
    assert result.failure is not None
    assert result.failure.message == result.reason
    assert result.reason.endswith(".")
    failure = result.failure
    return Told(reason=failure.reason, category=failure.category, retryable=failure.retryable)


@contextmanager
def rows_stay(path: Path) -> Iterator[None]:
    """Show that every row is as it was and that the file is sound."""
    before = content(path)
    yield
    assert content(path) == before
    assert query(path, "PRAGMA integrity_check") == [("ok",)]


@contextmanager
def bytes_stay(path: Path) -> Iterator[None]:
    """Show that no byte changed, for a file that cannot be read as a database."""
    before = path.read_bytes()
    yield
    assert path.read_bytes() == before


def indexed_database(path: Path, *, rows: int = 3_000, width: int = 200, journal: str = "delete") -> Path:
    """A file with free pages, an index and a UNIQUE, that no operation finds in order; the same at every run.

    ANALYZE looks rows up for its samples, and which these are depends on the contents.
    """
    chance = random.Random(1)
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", journal)
    connection.pragma("synchronous", 0)
    connection.execute("CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT UNIQUE, body BLOB)")
    connection.execute("CREATE INDEX item_body ON item(body)")
    with connection:
        connection.executemany(
            "INSERT INTO item VALUES (?, ?, ?)",
            ((number, f"name {number}", chance.randbytes(width)) for number in range(1, rows + 1)),
        )
    connection.execute("DELETE FROM item WHERE id % 3 = 0")
    connection.close()
    return path


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that every user may reach and write, which pytest's own is not."""
    folder = Path(tempfile.mkdtemp(prefix="overhaul-unfriendly-"))
    folder.chmod(0o777)
    try:
        yield folder
    finally:
        folder.chmod(0o700)
        shutil.rmtree(folder)


@contextmanager
def without_rights() -> Iterator[None]:
    """Give root's rights up; root passes every check."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


class Other:
    """Another process that has the file open, from when it says so until it is told to go on."""

    def __init__(self, what: str, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.unfriendly.others", what, str(path)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def go_on(self) -> None:
        """Let it go on and wait for its end."""
        self._process.communicate("go on\n", timeout=PATIENCE)
        assert self._process.returncode == 0

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.communicate(timeout=PATIENCE)


@contextmanager
def other(what: str, path: Path) -> Iterator[Other]:
    """Have another process in the way."""
    process = Other(what, path)
    try:
        yield process
    finally:
        process.kill()


def run_while_waiting(path: Path, name: str, then: Callable[[], None]) -> Result:
    """Run an operation on a locked file, and do something as soon as it waits for the lock."""
    worker = worker_on(path)
    results: list[Result] = []
    wanted = operation(name, busy_timeout_ms=int(PATIENCE * 1000))
    thread = threading.Thread(target=lambda: results.append(worker.execute(wanted)))
    thread.start()
    end = time.monotonic() + PATIENCE
    while not _waits(worker) and thread.is_alive() and time.monotonic() < end:
        time.sleep(0.005)
    assert _waits(worker), f"{name} did not meet the lock: {results}"
    then()
    thread.join(PATIENCE)
    return results[0]


def _waits(worker: SqliteWorker) -> bool:
    return worker._session is not None and worker._session._waiting_since > 0
