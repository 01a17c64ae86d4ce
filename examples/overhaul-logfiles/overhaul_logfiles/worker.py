"""Running one operation, for one lease."""

import threading
import time
from collections.abc import Mapping
from dataclasses import replace

from overhaul_logfiles.endings import Ending, Kind, cancelled, failed, from_os_error, judge
from overhaul_logfiles.folder import Folder, LogFile, measures_of
from overhaul_logfiles.inspecting import inspect
from overhaul_logfiles.operations import Procedure, find
from overhaul_logfiles.options import read_options
from worker_service.domain.errors import InvalidOperationError, OperationCancelledError
from worker_service.domain.inspection import INSPECT, Inspection
from worker_service.domain.operation import WORKER_TYPE, Operation, Progress
from worker_service.domain.outcome import FailureCategory, Measures, Outcome, Result, Verdict
from worker_service.domain.ports import Control


class LogfilesWorker:
    """Runs the operation of one lease on one folder.

    Args:
        folder: the folder.
        identity: what the target's owner says it is; ``None`` when the folder itself tells.
        expected: which folder it was when it was described; ``None`` when any will do.
        control: the worker that holds the lease.
    """

    worker_type = WORKER_TYPE

    def __init__(self, *, folder: Folder, identity: str | None, expected: str | None, control: Control) -> None:
        self._folder = folder
        self._identity = identity
        self._expected = expected
        self._control = control
        self._stop = threading.Event()

    def validate(self, operation: Operation) -> None:
        """Check the names and options without a look at the folder; raise ``InvalidOperationError``."""
        if operation.name == INSPECT:
            read_options((), operation.options)
            return
        read_options(find(operation.name).options, operation.options)
        if operation.object and ("/" in operation.object or operation.object.startswith(".")):
            raise InvalidOperationError(f"{operation.object!r} is no file of the folder: give its name alone.")

    def execute(self, operation: Operation) -> Result:
        """Run the operation; whatever the operating system refuses is a result."""
        try:
            found = self._folder.identity()
            if self._expected not in {None, found}:
                return _replaced(self._folder)
            if operation.name == INSPECT:
                return self._inspected(self._identity or found, operation.inspection or Inspection())
            return self._done(operation)
        except OSError as error:
            return judge([from_os_error(str(self._folder.path), error)])

    def interrupt(self) -> None:
        """Stop at the next piece of a file; it may come from any thread, and again and again."""
        self._stop.set()

    def _inspected(self, identity: str, inspection: Inspection) -> Result:
        found = inspect(self._folder, identity, inspection, time.time())
        told = f"found {len(found.objects)} objects."
        return Result(outcome=Outcome.COMPLETED, verdict=Verdict.EFFECTIVE, reason=told, inspection=found)

    def _done(self, operation: Operation) -> Result:
        procedure = find(operation.name)
        options = read_options(procedure.options, operation.options)
        files = self._files(procedure, operation.object)
        before = self._measures(operation.object)
        endings: list[Ending] = []
        try:
            self._walk(procedure, options, files, endings)
            result = judge(endings)
        except OperationCancelledError:
            result = cancelled(endings)
        return replace(result, before=before, after=self._measures(operation.object))

    def _files(self, procedure: Procedure, name: str | None) -> tuple[LogFile, ...]:
        if name is None:
            return tuple(file for file in self._folder.files() if procedure.takes(file))
        file = self._folder.find(name)
        if file is not None and not procedure.takes(file):
            raise InvalidOperationError(f"{procedure.name} is not for files such as {name}.")
        return (file,) if file else ()

    def _walk(
        self, procedure: Procedure, options: Mapping[str, int], files: tuple[LogFile, ...], endings: list[Ending]
    ) -> None:
        total, done = procedure.passes * sum(file.size_bytes for file in files), 0

        def step(number: int) -> None:
            nonlocal done
            # A file that grew is told as done at its old size: a share never passes the whole.
            done = min(done + number, total)
            self._control.progress(Progress(phase=procedure.name, done=done, total=total, unit="bytes"))
            self._halt()

        for file in files:
            self._halt()
            if why_not := file.left_out or procedure.why_not(file, options, time.time()):
                ending = Ending(name=file.name, kind=Kind.SKIPPED, told=f"{file.name}: {why_not}.")
            else:
                ending = procedure.run(self._folder.path / file.name, options, step)
            self._control.log("warning" if ending.failure else "info", ending.told)
            endings.append(ending)

    def _halt(self) -> None:
        """Stop when that was asked for; wait while the lease is in doubt."""
        if self._stop.is_set():
            raise OperationCancelledError("The operation was stopped.")
        self._control.checkpoint()

    def _measures(self, name: str | None) -> Measures:
        """Measure what the operation is done to: of a file also what has become of it."""
        if name is None:
            return measures_of(self._folder.files())
        file = self._folder.find(name) or self._folder.find(f"{name}.gz")
        return file.measures(time.time()) if file else {}


def _replaced(folder: Folder) -> Result:
    text = f"{folder.path} is another folder than the one that was registered: register the target again."
    return judge([failed(str(folder.path), "TARGET_REPLACED", text, FailureCategory.UNAVAILABLE)])
