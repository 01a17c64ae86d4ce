from collections.abc import Callable
from dataclasses import dataclass, field

from worker_service.domain.errors import OperationCancelledError
from worker_service.domain.operation import Operation, Progress
from worker_service.domain.outcome import Result
from worker_service.domain.target import Target
from worker_service.operations.sqlite import SqliteEngine
from worker_service.operations.sqlite.worker import SqliteWorker


@dataclass
class RecordingControl:
    """A worker's control that remembers what it was told, and says stop at a chosen checkpoint."""

    stop_at: int | None = None
    on_progress: Callable[[Progress], None] | None = None
    checkpoints: int = 0
    progresses: list[Progress] = field(default_factory=list)
    lines: list[tuple[str, str]] = field(default_factory=list)

    def checkpoint(self) -> None:
        self.checkpoints += 1
        if self.stop_at is not None and self.checkpoints >= self.stop_at:
            raise OperationCancelledError("The test says stop.")

    def progress(self, progress: Progress) -> None:
        self.progresses.append(progress)
        if self.on_progress:
            self.on_progress(progress)

    def log(self, level: str, message: str) -> None:
        self.lines.append((level, message))


def target_at(path: object, name: str = "app", identity: str | None = None) -> Target:
    return Target(name=name, url=str(path), engine="sqlite", identity=identity)


def operation(name: str, **options: object) -> Operation:
    return Operation(name=name, target="app", options={key: str(value) for key, value in options.items()})


def worker_on(path: object, control: RecordingControl | None = None) -> SqliteWorker:
    return SqliteEngine().worker(target_at(path), control or RecordingControl())


def run(path: object, name: str, control: RecordingControl | None = None, **options: object) -> Result:
    return worker_on(path, control).execute(operation(name, **options))
