import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import psycopg

from worker_service.domain.operation import Progress
from worker_service.operations.postgresql.address import connect
from worker_service.operations.postgresql.prologue import looking_settings, state
from worker_service.operations.postgresql.session import Session
from worker_service.operations.postgresql.waiting import INTERVAL, look_at_waits

_LAST_LOOK = 1.0
"""Seconds that the end of an operation waits for a look that is under way; what it finds is not told any more."""

Raw = psycopg.Connection[tuple[Any, ...]]
HowFar = tuple[int | None, int | None, str]
"""Done, total and their unit; nothing where the server does not tell."""

_Current = tuple[str, float, int]
"""What a session is at: the object's name, since when, and the how many-th it is."""
_BUILDING = "building index: "
_NOT_TOLD = "the server does not tell how far it is"
_NOTHING: HowFar = (None, None, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A view of the server that tells how far a statement is, and how its columns are read."""

    relation: str
    read: Callable[[Mapping[str, Any]], HowFar]


def _vacuum(row: Mapping[str, Any]) -> HowFar:
    match row["phase"]:
        case "scanning heap":
            return row["heap_blks_scanned"], row["heap_blks_total"], "pages"
        case "vacuuming heap":
            # Only the pages with dead rows are gone through again, and how many these are is not told.
            return row["heap_blks_vacuumed"], None, "pages"
        case "vacuuming indexes" | "cleaning up indexes" if row.get("indexes_total"):
            return row["indexes_processed"], row["indexes_total"], "indexes"
        case _:
            return _NOTHING


def _rewrite(row: Mapping[str, Any]) -> HowFar:
    if row["phase"] == "seq scanning heap":
        return row["heap_blks_scanned"], row["heap_blks_total"], "pages"
    return _NOTHING


def _analyze(row: Mapping[str, Any]) -> HowFar:
    if row["phase"].startswith("acquiring"):
        return row["sample_blks_scanned"], row["sample_blks_total"], "pages"
    return _NOTHING


def _index(row: Mapping[str, Any]) -> HowFar:
    phase = row["phase"]
    if phase.startswith("waiting"):
        return row["lockers_done"], row["lockers_total"], "transactions"
    if "loading" in phase:
        return row["tuples_done"], row["tuples_total"], "rows"
    # While it sorts, the pages of the scan before still stand there.
    if "sorting" not in phase and row["blocks_total"]:
        return row["blocks_done"], row["blocks_total"], "pages"
    return _NOTHING


VACUUM = View(relation="pg_stat_progress_vacuum", read=_vacuum)
REWRITE = View(relation="pg_stat_progress_cluster", read=_rewrite)
ANALYZE = View(relation="pg_stat_progress_analyze", read=_analyze)
INDEX = View(relation="pg_stat_progress_create_index", read=_index)


class Watch:
    """Tells how far a sweep is and who waits for locks, from a thread and over a connection of its own.

    In the operation's own connection there is no asking while its statement runs, and in a transaction the
    views would stand still.

    Args:
        session: the operation's session.
        verb: what is done, which is the phase between two long statements.
        total: how many objects there are.
        unit: what they are called.
        view: where the server tells of one statement; ``None`` where it does not.
    """

    def __init__(self, session: Session, *, verb: str, total: int, unit: str, view: View | None) -> None:
        self._session = session
        self._verb = verb
        self._total = total
        self._unit = unit
        self._view = view
        self._done = 0
        self._begun = 0
        self._current: dict[Session, _Current] = {}
        self._told: tuple[str, int] = ("", 0)
        self._told_of: Session | None = None
        self._guard = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self._session.waits.begin()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(_LAST_LOOK)

    @contextmanager
    def step(self, name: str, lane: Session) -> Iterator[None]:
        """Watch one statement of a session, on the object of that name."""
        with self._guard:
            self._begun = min(self._begun + 1, self._total)
            self._current[lane] = (name, time.monotonic(), self._begun)
            if len(self._current) == 1 or self._told_of not in self._current:
                self._tell(self._between())
        try:
            yield
        finally:
            with self._guard:
                del self._current[lane]
                if self._told_of is lane:
                    self._told_of = None
                # Those that are tried once more were counted before.
                self._done = min(self._done + 1, self._total)

    def _between(self) -> Progress:
        if self._total > 1:
            return Progress(phase=self._verb, done=self._done, total=self._total, unit=self._unit)
        # To count a single object would be an invented 0 %.
        return Progress(phase=self._verb if self._view else f"{self._verb}: {_NOT_TOLD}")

    def _watch(self) -> None:
        connection: Raw | None = None
        try:
            while not self._ended.wait(INTERVAL):
                with self._guard:
                    lasting = [one for one in self._current.items() if time.monotonic() - one[1][1] >= INTERVAL]
                if not lasting:
                    continue
                if connection is None:
                    connection = connect(self._session.conninfo, "overhaul-look")
                    state(connection, looking_settings(self._session.version))
                for number, (lane, began) in enumerate(lasting):
                    # Of several one is told of, for as long as it lasts.
                    self._look(connection, lane, began, tells=number == 0)
        except psycopg.Error as error:
            self._session.waits.unknown(f"The server does not tell how far it is, nor who waits: {error}")
        finally:
            if connection is not None:
                connection.close()

    def _look(self, connection: Raw, lane: Session, began: _Current, *, tells: bool) -> None:
        look_at_waits(connection, pid=lane.pid, ours=self._session.pids, waits=lane.waits)
        if self._view is None or not tells:
            return
        query = f"SELECT to_jsonb(p) FROM {self._view.relation} AS p WHERE pid = %s"  # noqa: S608 - a constant
        rows = connection.execute(query.encode(), [lane.pid]).fetchall()
        if rows and rows[0][0].get("phase"):
            self._sample(lane, began, self._view.read(rows[0][0]), rows[0][0]["phase"])

    def _sample(self, lane: Session, began: _Current, how_far: HowFar, phase: str) -> None:
        done, total, unit = how_far
        # A long phase is cut at its end, so the object's name comes last.
        name, _, number = began
        place = f" {number} of {self._total}" if self._total > 1 else ""
        told = f"{self._verb}{place}, {phase.removeprefix(_BUILDING)}: {name}"
        with self._guard:
            # Meanwhile the next statement may have begun, of which this says nothing.
            if self._current.get(lane) == began:
                self._told_of = lane
                self._tell(Progress(phase=told, done=done, total=total, unit=unit))

    def _tell(self, progress: Progress) -> None:
        if progress.done is not None:
            phase, most = self._told
            done = max(progress.done, most if phase == progress.phase else 0)
            if progress.total is not None:
                done = min(done, progress.total)
            self._told = (progress.phase, done)
            progress = Progress(phase=progress.phase, done=done, total=progress.total, unit=progress.unit)
        self._session.progress(progress)
