"""The entry point: what the worker asks of an engine."""

from overhaul_logfiles.folder import SCHEME, Folder, lock_on
from overhaul_logfiles.operations import find, specs
from overhaul_logfiles.options import read_options
from overhaul_logfiles.worker import LogfilesWorker
from worker_service.domain.errors import InvalidTargetError, TargetUnavailableError
from worker_service.domain.inspection import INSPECT
from worker_service.domain.operation import Operation
from worker_service.domain.ports import Control
from worker_service.domain.target import Target, TargetDescription

VERSION = "1"


class LogfilesEngine:
    """Maintenance of folders of rotated log files."""

    name = "logfiles"
    schemes = frozenset({SCHEME})

    def __init__(self) -> None:
        self._described: dict[str, str] = {}

    def check(self, target: Target) -> None:
        """Refuse what can never work, when the worker starts; raise ``InvalidTargetError``."""
        folder = Folder.of(target.url)
        if not folder.path.is_dir():
            raise InvalidTargetError(
                f"The target {target.name!r}: {folder.path} is no folder; it is never created."
            )

    def describe(self, target: Target) -> TargetDescription:
        """Tell which folder it is and what can be done to it; what cannot be read now is asked again later."""
        try:
            found = Folder.of(target.url).identity()
        except OSError as error:
            raise TargetUnavailableError(
                f"The target {target.name!r} cannot be read: {error.strerror}."
            ) from error
        self._described[target.name] = found
        identity = target.identity or found
        return TargetDescription(engine_version=VERSION, identity=identity, operations=specs(lock_on(identity)))

    def worker(self, target: Target, control: Control) -> LogfilesWorker:
        """Make the worker of one lease."""
        expected = None if target.identity else self._described.get(target.name)
        return LogfilesWorker(
            folder=Folder.of(target.url), identity=target.identity, expected=expected, control=control
        )

    def plan(self, target: Target, operation: Operation) -> tuple[str, ...]:
        """Tell what would be done to the folder as it is, or to the one file."""
        if operation.name == INSPECT:
            return ()
        procedure = find(operation.name)
        options = read_options(procedure.options, operation.options)
        try:
            files = Folder.of(target.url).files()
        except OSError as error:
            raise TargetUnavailableError(
                f"The target {target.name!r} cannot be read: {error.strerror}."
            ) from error
        return tuple(
            procedure.statement(file.name, options)
            for file in files
            if operation.object in {None, file.name} and procedure.takes(file) and not file.left_out
        )
