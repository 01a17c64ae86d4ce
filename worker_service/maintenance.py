from dataclasses import replace

import structlog

from worker_service.domain.operation import WORKER_TYPE, Operation
from worker_service.domain.outcome import Result
from worker_service.domain.ports import Control, Engine, OperationWorker
from worker_service.domain.selected import unless_nothing_fits, watched
from worker_service.domain.settlement import from_exception
from worker_service.domain.target import Target


class MaintenanceWorker:
    """Runs one maintenance operation on one target; nothing escapes from it but a ``Result``.

    Args:
        engine: the engine of the target.
        target: the database.
        control: what the operation may ask of the worker that holds its lease.
        log: the logger, bound to the job's ids.
    """

    worker_type = WORKER_TYPE

    def __init__(
        self, *, engine: Engine, target: Target, control: Control, log: structlog.typing.FilteringBoundLogger
    ) -> None:
        self._engine = engine
        self._target = target
        self._control = control
        self._log = log
        self._running: OperationWorker | None = None

    def validate(self, operation: Operation) -> None:
        """Check the operation without touching the target; raise ``InvalidOperationError``."""
        self._engine.worker(self._target, self._control).validate(operation)

    def execute(self, operation: Operation) -> Result:
        """Validate and run the operation and say how it ended; whatever escapes from the engine is a result."""
        try:
            self._control.checkpoint()
            self._running = self._engine.worker(self._target, self._control)
            self._running.validate(operation)
            operation = watched(operation)
            result = unless_nothing_fits(self._running.execute(operation), operation.inspection)
            return self._with_thresholds(result)
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything, and must not kill the worker
            self._log.debug("operation raised", error=type(error).__name__, exc_info=True)
            return from_exception(error)

    def _with_thresholds(self, result: Result) -> Result:
        """Add to what an inspection found when the target's owner thinks operations worth their while."""
        if result.inspection is None or not self._target.only_if:
            return result
        return replace(result, inspection=replace(result.inspection, only_if=self._target.only_if))

    def interrupt(self) -> None:
        """Stop the statement that runs now, from any thread; harmless when none runs."""
        if self._running is not None:
            self._running.interrupt()
