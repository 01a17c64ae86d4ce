"""The seams of the worker: what an engine plugin implements, and what it is handed."""

from typing import Protocol, runtime_checkable

from worker_service.domain.operation import Operation, Progress
from worker_service.domain.outcome import Result
from worker_service.domain.target import Target, TargetDescription


class Control(Protocol):
    """What a running operation may ask of the worker that runs it. Every method is safe from any thread."""

    def checkpoint(self) -> None:
        """Wait here while the lease is in doubt, between two statements.

        Raises:
            OperationCancelledError: the operation has to stop.
        """

    def progress(self, progress: Progress) -> None:
        """Publish how far the operation is; cheap enough to call often, sent at most once a second."""

    def log(self, level: str, message: str) -> None:
        """Append a line to the child job's log at ``debug``, ``info``, ``warning`` or ``error``."""


class OperationWorker(Protocol):
    """Runs operations on one target; made for one lease, used by one thread, interrupted from another."""

    worker_type: str

    def validate(self, operation: Operation) -> None:
        """Check the operation's name and options without touching the target.

        Raises:
            InvalidOperationError: it cannot run here; the message says why.
        """

    def execute(self, operation: Operation) -> Result:
        """Run the operation and read from the target's state what it really did.

        Every trouble of the target is a ``Result``; what escapes is a defect of the engine.

        Raises:
            TargetBusyError: another connection holds the target; the lease is released.
            OperationCancelledError: ``Control.checkpoint`` said stop before anything ran.
        """

    def interrupt(self) -> None:
        """Stop the statement that runs now, from any thread; harmless when none runs.

        ``execute`` then returns what the state of the target says: cancelled, or completed when the
        interrupt came too late.
        """


class Engine(Protocol):
    """A kind of database; a plugin under the entry-point group ``overhaul.engines``."""

    name: str
    schemes: frozenset[str]
    """URL schemes it answers to, such as ``sqlite``; a path without a scheme belongs to ``sqlite``."""

    def check(self, target: Target) -> None:
        """Check the target's URL without creating or changing anything; raise ``InvalidTargetError``."""

    def describe(self, target: Target) -> TargetDescription:
        """Read what the target is and can do; raise ``TargetUnavailableError`` when it cannot be read."""

    def worker(self, target: Target, control: Control) -> OperationWorker:
        """Make a worker for one lease; it opens a connection of its own when it executes."""

    def plan(self, target: Target, operation: Operation) -> tuple[str, ...]:
        """Tell the statements that would run, in order, without changing anything."""


@runtime_checkable
class Throttling(Protocol):
    """What an engine has beside that can tell whether a target is to be held back; others know the file alone."""

    throttles: frozenset[str]
    """What it can look at, by the names of `Throttle`."""

    def held_back(self, target: Target, *, seconds: float) -> str:
        """Look at what the target's throttle asks for, over a connection of its own that only reads.

        Args:
            target: one with a throttle.
            seconds: how long a statement, and the way to the server, may take.

        Returns:
            Why nothing is to begin there, in a few words; the empty text when it may.

        Raises:
            TargetUnavailableError: it cannot be looked at, which holds the target back too.
        """


class Engines(Protocol):
    """The installed engines."""

    def by_name(self, name: str) -> Engine:
        """Return the engine called ``name``; raise ``InvalidTargetError`` when there is none."""

    def for_url(self, url: str) -> Engine:
        """Return the engine that answers to the URL's scheme; raise ``InvalidTargetError`` when none does."""
