"""How a job is shown while it runs: live rows in a terminal, plain lines anywhere else. Both are talk: stderr."""

import sys
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from manager_service.client.render import console, ended
from manager_service.client.words import safe, spoken
from overhaul.v1 import job_pb2, job_service_pb2

LIVE = frozenset({job_pb2.CHILD_JOB_STATE_LEASED, job_pb2.CHILD_JOB_STATE_RUNNING})
LIVE_ROWS = 16


class View(Protocol):
    """Takes the updates of a watch, in order."""

    def __enter__(self) -> Self:
        """Begin to show."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""

    def say(self, text: str) -> None:
        """Show a line that stays."""

    def parent(self, state: str, counts: job_pb2.ChildJobCounts) -> None:
        """Show how the parent job stands."""

    def child(self, change: job_service_pb2.ChildJobChange) -> None:
        """Show that a child changed its state."""

    def progress(self, update: job_service_pb2.ProgressUpdate) -> None:
        """Show how far a running child is."""


def choose_view() -> View:
    """Return the live view where stderr is a terminal, otherwise the plain one."""
    screen = console(sys.stderr)
    return LiveView(screen) if screen.is_terminal and not screen.is_dumb_terminal else PlainView(screen)


class PlainView:
    """A line per change of a child."""

    def __init__(self, screen: Console) -> None:
        self._screen = screen
        self._state = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def say(self, text: str) -> None:
        """Show a line that stays."""
        self._screen.print(Text(safe(text)), soft_wrap=True)

    def parent(self, state: str, counts: job_pb2.ChildJobCounts) -> None:
        """Tell a new state of the parent job."""
        if state != self._state:
            self._state = state
            self.say(f"job {state}: {ended(counts)} of {counts.total} children ended")

    def child(self, change: job_service_pb2.ChildJobChange) -> None:
        """Tell every change but that of a lease, which is followed by running."""
        if change.state != job_pb2.CHILD_JOB_STATE_LEASED:
            self.say(sentence(change))

    def progress(self, update: job_service_pb2.ProgressUpdate) -> None:
        """Pass over it: a log file is no place for a percentage a second."""


class LiveView:
    """A bar for the parent job, a row per live child, and a line that stays for each that ended."""

    def __init__(self, screen: Console) -> None:
        self._screen = screen
        # A column that reads markup would let a target's name paint; Text columns here take none.
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[said]}", markup=False),
            TimeElapsedColumn(),
            console=screen,
            transient=True,
        )
        self._parent = self._bars.add_task("job", total=None, said="")
        self._rows: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """Show a line that stays, above the bars."""
        self._screen.print(Text(safe(text)))

    def parent(self, state: str, counts: job_pb2.ChildJobCounts) -> None:
        """Move the parent job's bar."""
        self._bars.update(
            self._parent,
            description=f"job {state}",
            completed=ended(counts),
            total=counts.total,
            said=f"{ended(counts)} of {counts.total}",
        )

    def child(self, change: job_service_pb2.ChildJobChange) -> None:
        """Give a live child a row, and turn it into a line that stays when it ended."""
        if change.state in LIVE:
            self._row(change.child_job_id, named(change))
            return
        row = self._rows.pop(change.child_job_id, None)
        if row is not None:
            self._bars.remove_task(row)
        self.say(sentence(change))

    def progress(self, update: job_service_pb2.ProgressUpdate) -> None:
        """Move the row of a child; its bar pulses where the engine does not tell how much there is."""
        row = self._row(update.child_job_id, safe(f"{update.operation} {update.target}"))
        how_far = update.progress
        if row is not None:
            known = how_far.HasField("total") and how_far.total > 0
            self._bars.update(
                row, completed=how_far.done, total=how_far.total if known else None, said=percentage(how_far)
            )

    def _row(self, child_job_id: str, name: str) -> TaskID | None:
        if child_job_id not in self._rows:
            if len(self._rows) >= LIVE_ROWS:
                return None
            self._rows[child_job_id] = self._bars.add_task(name, total=None, said="")
        return self._rows[child_job_id]


def named(change: job_service_pb2.ChildJobChange) -> str:
    """Return operation, target and object as people call a child job, safe to print."""
    place = f"{change.target}.{change.object}" if change.HasField("object") else change.target
    return safe(f"{change.operation} {place}")


def sentence(change: job_service_pb2.ChildJobChange) -> str:
    """Return what happened to a child, such as ``vacuum app: completed, effective (freed 12 MB)``."""
    state = "waiting" if change.state == job_pb2.CHILD_JOB_STATE_PENDING else spoken(change, "state")
    verdict = spoken(change, "verdict")
    why = f" ({safe(change.reason)})" if change.reason else ""
    return f"{named(change)}: {state}{', ' + verdict if verdict else ''}{why}"


def percentage(progress: job_pb2.Progress) -> str:
    """Return how far an operation is, such as ``copy 41 %``, or ``copy 1200 pages`` without a total."""
    phase = safe(progress.phase)
    if progress.HasField("done") and progress.total > 0:
        return f"{phase} {min(100, 100 * progress.done // progress.total)} %".strip()
    return f"{phase} {progress.done} {safe(progress.unit)}".strip() if progress.HasField("done") else phase
