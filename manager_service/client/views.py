"""How a job is shown while it runs: live rows in a terminal, plain lines anywhere else. Both are talk: stderr."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from manager_service.client.render import console, ended
from manager_service.client.words import how_far, safe, spoken
from overhaul.v1 import job_pb2, job_service_pb2

LIVE = frozenset({job_pb2.CHILD_JOB_STATE_LEASED, job_pb2.CHILD_JOB_STATE_RUNNING})
LIVE_ROWS = 16
APART = 10
"""At least so many seconds lie between two lines on how far a child is, and before the first."""


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
    """A line per change of a child, and now and then one of how far it is.

    Args:
        screen: where lines go.
        clock: seconds that never fall; they space the lines of one child.
    """

    def __init__(self, screen: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._screen = screen
        self._clock = clock
        self._state = ""
        self._told_at: dict[str, float] = {}
        self._waits: dict[str, str] = {}

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
        if change.state in LIVE:
            self._told_at[change.child_job_id] = self._clock()
        else:
            self._told_at.pop(change.child_job_id, None)
        if change.state == job_pb2.CHILD_JOB_STATE_LEASED:
            return
        # Who waits for the same again and again has said so.
        waits = change.state == job_pb2.CHILD_JOB_STATE_PENDING
        told = sentence(change)
        if self._waits.get(change.child_job_id) != told:
            self.say(told)
        if waits:
            self._waits[change.child_job_id] = told
        elif change.state not in LIVE:
            self._waits.pop(change.child_job_id, None)

    def progress(self, update: job_service_pb2.ProgressUpdate) -> None:
        """Tell it from time to time: a log file is no place for a percentage a second."""
        now = self._clock()
        if now - self._told_at.setdefault(update.child_job_id, now) >= APART:
            self._told_at[update.child_job_id] = now
            self.say(f"{named(update)}: {how_far(update.progress)}")


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
        row = self._row(update.child_job_id, named(update))
        progress = update.progress
        if row is not None:
            known = progress.HasField("total") and progress.total > 0
            self._bars.update(
                row, completed=progress.done, total=progress.total if known else None, said=how_far(progress)
            )

    def _row(self, child_job_id: str, name: str) -> TaskID | None:
        if child_job_id not in self._rows:
            if len(self._rows) >= LIVE_ROWS:
                return None
            self._rows[child_job_id] = self._bars.add_task(name, total=None, said="")
        return self._rows[child_job_id]


def named(update: job_service_pb2.ChildJobChange | job_service_pb2.ProgressUpdate) -> str:
    """Return operation, target and object as people call a child job, safe to print."""
    place = f"{update.target}.{update.object}" if update.HasField("object") else update.target
    return safe(f"{update.operation} {place}")


def sentence(change: job_service_pb2.ChildJobChange) -> str:
    """Return what happened to a child, such as ``vacuum app: completed, effective (freed 12 MB)``."""
    state = "waiting" if change.state == job_pb2.CHILD_JOB_STATE_PENDING else spoken(change, "state")
    verdict = spoken(change, "verdict")
    why = f" ({safe(change.reason)})" if change.reason else ""
    return f"{named(change)}: {state}{', ' + verdict if verdict else ''}{why}"
