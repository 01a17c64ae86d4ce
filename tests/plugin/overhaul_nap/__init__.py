"""An engine for tests, found by its entry point as any other plugin would be.

A target ``nap:///path/to/audit`` has the operations ``noop``, ``nap``, ``doze``, ``rest``, ``fail`` and ``faint``,
all but the first with the option ``milliseconds``. The start and the end of each but ``noop`` are appended to the
audit file, with the monotonic clock of the machine. ``faint`` hears nothing until it is over, as a long statement.
"""

import os
import threading
import time

from worker_service.domain.errors import InvalidOperationError, InvalidTargetError, OperationCancelledError
from worker_service.domain.lock import Lock
from worker_service.domain.operation import (
    WORKER_TYPE,
    Operation,
    OperationSpec,
    OptionSpec,
    OptionType,
    Progress,
)
from worker_service.domain.outcome import Failure, FailureCategory, Outcome, Result, Verdict
from worker_service.domain.ports import Control
from worker_service.domain.target import Target, TargetDescription

_STEP_SECONDS = 0.02
_NAPS = ("nap", "doze", "rest", "fail", "faint")
_OPTIONS = (OptionSpec(name="milliseconds", type=OptionType.INTEGER, description="how long to nap"),)


def _audit_path(target: Target) -> str:
    return target.url.removeprefix("nap://")


class NapEngine:
    """Naps instead of maintaining, and keeps an audit of it."""

    name = "nap"
    schemes = frozenset({"nap"})

    def check(self, target: Target) -> None:
        """Refuse a URL without an absolute path."""
        if not _audit_path(target).startswith("/"):
            raise InvalidTargetError(f"target {target.name}: write nap:///path/to/audit")

    def describe(self, target: Target) -> TargetDescription:
        """Offer the operations under one exclusive key."""
        lock = Lock(key=f"nap:{_audit_path(target)}")
        operations = tuple(
            OperationSpec(name=name, description=f"{name} for tests", options=_OPTIONS, locks=(lock,))
            for name in ("noop", *_NAPS)
        )
        return TargetDescription(
            engine_version="1", identity=target.identity or _audit_path(target), operations=operations
        )

    def worker(self, target: Target, control: Control) -> "NapWorker":
        """Make a worker for one lease."""
        return NapWorker(_audit_path(target), control)

    def plan(self, target: Target, operation: Operation) -> tuple[str, ...]:
        """Tell what would be done."""
        return (f"{operation.name.upper()} {target.name}",)


class NapWorker:
    """Naps for one lease."""

    worker_type = WORKER_TYPE

    def __init__(self, audit: str, control: Control) -> None:
        self._audit_file = audit
        self._control = control
        self._interrupted = threading.Event()

    def validate(self, operation: Operation) -> None:
        """Refuse an unknown operation."""
        if operation.name not in {"noop", *_NAPS}:
            raise InvalidOperationError(f"the nap engine has no operation {operation.name}")

    def execute(self, operation: Operation) -> Result:
        """Nap in small steps until the time is over or someone interrupts."""
        if operation.name == "noop":
            return Result(outcome=Outcome.COMPLETED, verdict=Verdict.NO_EFFECT, reason="nothing to do")
        self._audit("start", operation)
        try:
            return self._nap(operation)
        finally:
            self._audit("end", operation)

    def interrupt(self) -> None:
        """Wake the napper."""
        self._interrupted.set()

    def _nap(self, operation: Operation) -> Result:
        total = int(operation.options.get("milliseconds", "100"))
        if operation.name == "faint":
            time.sleep(total / 1000)
            return _napped(total)
        begun = time.monotonic()
        self._control.log("info", f"napping for {total} ms")
        while (done := int((time.monotonic() - begun) * 1000)) < total:
            self._control.progress(Progress(phase="nap", done=done, total=total, unit="ms"))
            if self._interrupted.wait(_STEP_SECONDS):
                return Result(
                    outcome=Outcome.CANCELLED, reason="woken up", after={"interrupt_ns": time.monotonic_ns()}
                )
            try:
                self._control.checkpoint()
            except OperationCancelledError:
                return Result(outcome=Outcome.CANCELLED, reason="asked to stop")
        if operation.name == "fail":
            failure = Failure(
                reason="NAP_FAILED",
                message="the nap failed, as asked",
                category=FailureCategory.INTERNAL,
                retryable=operation.options.get("milliseconds") != "0",
            )
            return Result(outcome=Outcome.FAILED, failure=failure)
        return _napped(total)

    def _audit(self, mark: str, operation: Operation) -> None:
        line = f"{mark} {operation.child_job_id} {operation.attempt} {os.getpid()} {time.monotonic_ns()}\n"
        fd = os.open(self._audit_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(fd, line.encode())
        finally:
            os.close(fd)


def _napped(milliseconds: int) -> Result:
    return Result(
        outcome=Outcome.COMPLETED,
        verdict=Verdict.EFFECTIVE,
        reason=f"napped for {milliseconds} ms",
        before={"tiredness": 1},
        after={"tiredness": 0},
    )
