"""An engine without a database, whose operations do what their names say."""

import threading
import time

from worker_service.domain.errors import (
    InvalidOperationError,
    InvalidTargetError,
    OperationCancelledError,
    TargetBusyError,
    TargetUnavailableError,
)
from worker_service.domain.lock import Lock
from worker_service.domain.operation import WORKER_TYPE, Operation, OperationSpec, Progress
from worker_service.domain.outcome import Outcome, Result, Verdict
from worker_service.domain.ports import Control
from worker_service.domain.target import Target, TargetDescription

OPERATIONS = ("noop", "block", "steps", "log", "boom", "exit", "busy", "deaf", "progress", "late", "nan")
DONE = Result(outcome=Outcome.COMPLETED, verdict=Verdict.NO_EFFECT, before={"pages": 1}, after={"pages": 1})


class FakeEngine:
    """Serves ``fake://`` URLs and remembers what was run and when it was interrupted."""

    name = "fake"
    schemes = frozenset({"fake"})

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.began: list[str] = []
        self.interrupts: list[float] = []
        self.running = 0
        self.most_running = 0
        self.unavailable = False
        self.guard = threading.Lock()

    def check(self, target: Target) -> None:
        if target.url.endswith("missing"):
            raise InvalidTargetError(f"The target {target.name!r} is missing: create it first.")

    def describe(self, target: Target) -> TargetDescription:
        if self.unavailable:
            raise TargetUnavailableError("The target is away.")
        specs = tuple(
            OperationSpec(name=name, description=name, locks=(Lock(key=target.name),)) for name in OPERATIONS
        )
        identity = target.identity or f"fake:{target.name}"
        return TargetDescription(engine_version="1", identity=identity, operations=specs)

    def worker(self, target: Target, control: Control) -> "FakeWorker":
        return FakeWorker(self, control)

    def plan(self, target: Target, operation: Operation) -> tuple[str, ...]:
        return (operation.name.upper(),)


class ThrottlingEngine(FakeEngine):
    """Tells what it is told to tell of the load: a reason, or what goes wrong."""

    throttles = frozenset({"max_active_sessions", "while_sql"})

    def __init__(self) -> None:
        super().__init__()
        self.says: str | Exception = ""
        self.looks = 0
        self.hang = threading.Event()
        self.hang.set()

    def held_back(self, target: Target, *, seconds: float) -> str:
        self.looks += 1
        says = self.says
        self.hang.wait(10)
        if isinstance(says, Exception):
            raise says
        return says


class FakeWorker:
    """Runs one operation of the fake engine."""

    worker_type = WORKER_TYPE

    def __init__(self, engine: FakeEngine, control: Control) -> None:
        self.engine = engine
        self.control = control
        self.interrupted = threading.Event()

    def validate(self, operation: Operation) -> None:
        if operation.name not in OPERATIONS:
            raise InvalidOperationError(f"There is no operation {operation.name}.")

    def execute(self, operation: Operation) -> Result:
        with self.engine.guard:
            self.engine.began.append(operation.child_job_id)
            self.engine.running += 1
            self.engine.most_running = max(self.engine.most_running, self.engine.running)
        try:
            return self._run(operation.name)
        finally:
            with self.engine.guard:
                self.engine.running -= 1

    def interrupt(self) -> None:
        self.engine.interrupts.append(time.monotonic())
        self.interrupted.set()

    def _run(self, name: str) -> Result:  # noqa: C901 - one case per operation
        match name:
            case "block":
                return self._block()
            case "steps":
                return self._steps()
            case "log":
                for number in range(3):
                    self.control.log("info", f"line {number} of s3cret")
            case "boom":
                raise RuntimeError("the disk of s3cret is on fire")
            case "exit":
                raise SystemExit(3)
            case "busy":
                raise TargetBusyError("Another connection holds the lock.")
            case "deaf":
                self.engine.go_on.wait(10)
            case "progress":
                self.control.progress(Progress(phase="copy", done=1, total=2, unit="pages"))
                return self._block()
            case "late":
                self.interrupted.wait(10)
            case "nan":
                return Result(outcome=Outcome.COMPLETED, before={"pages": "many"})  # type: ignore[dict-item]  # a careless plugin
        return DONE

    def _block(self) -> Result:
        while not self.engine.go_on.wait(0.005):
            if self.interrupted.is_set():
                return Result(outcome=Outcome.CANCELLED, before={"pages": 7})
        return DONE

    def _steps(self) -> Result:
        while not self.engine.go_on.wait(0.005):
            try:
                self.control.checkpoint()
            except OperationCancelledError as error:
                return Result(outcome=Outcome.CANCELLED, reason=str(error))
        return DONE
