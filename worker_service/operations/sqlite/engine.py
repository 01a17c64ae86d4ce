import os

import apsw

from worker_service.domain.errors import InvalidTargetError, TargetUnavailableError
from worker_service.domain.inspection import INSPECT
from worker_service.domain.operation import Operation
from worker_service.domain.ports import Control
from worker_service.domain.target import Target, TargetDescription
from worker_service.operations.sqlite import throttling
from worker_service.operations.sqlite.catalogue import find, find_wanted, specs
from worker_service.operations.sqlite.identity import file_key, identity_of, lock_on, several_links
from worker_service.operations.sqlite.location import Location
from worker_service.operations.sqlite.rights import failure_on, unreachable
from worker_service.operations.sqlite.session import looking
from worker_service.operations.sqlite.worker import SqliteWorker


class SqliteEngine:
    """Maintenance of SQLite database files, by the library that apsw brings."""

    name = "sqlite"
    schemes = frozenset({"sqlite"})
    throttles = throttling.THROTTLES

    def __init__(self) -> None:
        self._described: dict[str, str] = {}

    def check(self, target: Target) -> None:
        """Check that the URL names a file that is there and can be told apart from others.

        What is in the file shows when an operation opens it.
        """
        location = Location.of(target.url)
        if os.path.isdir(location.path):  # noqa: PTH112 - a string, as it was given
            raise InvalidTargetError(f"The target {target.name!r} is a folder, not a SQLite file.")
        try:
            location.stat()
            identity_of(target, location)
        except OSError as error:
            raise InvalidTargetError(
                f"The target {target.name!r} ({location.path}): {unreachable(error).message} It is never created."
            ) from error

    def describe(self, target: Target) -> TargetDescription:
        """Read the file's identity, and remember which file it is."""
        location = Location.of(target.url)
        try:
            identity = identity_of(target, location)
            self._described[target.name] = file_key(location)
        except OSError as error:
            raise TargetUnavailableError(unreachable(error).message) from error
        return TargetDescription(
            engine_version=apsw.sqlite_lib_version(), identity=identity, operations=specs(lock_on(identity))
        )

    def worker(self, target: Target, control: Control) -> SqliteWorker:
        """Make the worker of one lease; with an identity of its own the target may be another file by then."""
        expected = None if target.identity else self._described.get(target.name)
        return SqliteWorker(location=Location.of(target.url), expected=expected, control=control)

    def plan(self, target: Target, operation: Operation) -> tuple[str, ...]:
        """Tell the statements that would run on the file as it is; none when nothing would.

        Raises:
            InvalidOperationError: the operation cannot run here.
            TargetUnavailableError: the file cannot be read without changing it.
        """
        if operation.name == INSPECT:
            find_wanted(operation)
            return ()
        procedure, options = find(operation)
        location = Location.of(target.url)
        try:
            size = location.stat().st_size
            if size == 0:
                return ()
            if size == 1:
                raise TargetUnavailableError("The file is not a SQLite database: it holds a single byte.")
            if refusal := several_links(location):
                raise TargetUnavailableError(refusal)
            with looking(location, seconds=5) as connection:
                # Some plans need nothing from the file, and would look well beside one that cannot be read.
                connection.execute("PRAGMA main.schema_version").fetchall()
                return procedure.plan(connection, options)
        except apsw.Error as error:
            raise TargetUnavailableError(failure_on(location, error).message) from error
        except OSError as error:
            raise TargetUnavailableError(unreachable(error).message) from error

    def held_back(self, target: Target, *, seconds: float) -> str:
        """Look at what the target's throttle asks for; raise ``TargetUnavailableError`` when that cannot be."""
        return throttling.held_back(target, seconds=seconds)
