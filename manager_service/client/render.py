"""Tables for people. Names and reasons are foreign text: escaped, and never read as markup."""

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

from rich import box
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from manager_service.client.words import duration, moment, safe, seconds, spoken
from overhaul.v1 import fleet_service_pb2, job_pb2

WIDTH_OF_A_FILE = 200
ELLIPSIS_TARGETS = 5

Row = Sequence[str]


def console(file: TextIO | None = None) -> Console:
    """Return a console that takes text as it is; into a file or pipe it writes wide lines."""
    stream = file or sys.stdout
    wide = None if stream.isatty() or "COLUMNS" in os.environ else WIDTH_OF_A_FILE
    return Console(file=stream, markup=False, highlight=False, emoji=False, width=wide)


def table(head: Sequence[str], rows: Iterable[Row], *, keep: Iterable[str] = ()) -> Table:
    """Return a table; columns that hold nothing in any row are left out, those in `keep` are never folded."""
    kept, cells = set(keep), [[safe(cell) for cell in row] for row in rows]
    drawn = [place for place, _ in enumerate(head) if not cells or any(row[place] for row in cells)]
    result = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for place in drawn:
        result.add_column(head[place], overflow="fold", no_wrap=head[place] in kept)
    for row in cells:
        result.add_row(*(Text(row[place]) for place in drawn))
    return result


def outcome_table(children: Iterable[job_pb2.ChildJob]) -> Table:
    """Return what each child did to its target: before and after."""
    head = ("operation", "target", "state", "verdict", "bytes", "free pages", "stat rows", "indexes", "time")
    return table(head, [_outcome(child) for child in children], keep=("operation", "time"))


def reasons(children: Iterable[job_pb2.ChildJob]) -> list[str]:
    """Return a line per child that has something to explain."""
    return [f"{name_of(child)}: {safe(why)}" for child in children if (why := _why(child))]


def name_of(child: job_pb2.ChildJob) -> str:
    """Return operation, target and object as people call a child job, safe to print."""
    place = f"{child.target}.{child.object}" if child.HasField("object") else child.target
    return safe(f"{child.operation} {place}")


def child_table(children: Iterable[job_pb2.ChildJob]) -> Table:
    """Return the children with their ids, and why those that wait do so."""
    head = ("id", "operation", "target", "state", "verdict", "attempts", "time", "waits for")
    rows = [
        (
            child.id,
            child.operation,
            f"{child.target}.{child.object}" if child.HasField("object") else child.target,
            spoken(child, "state"),
            spoken(child, "verdict"),
            str(child.attempts),
            seconds(duration(child)),
            _waits_for(child),
        )
        for child in children
    ]
    return table(head, rows, keep=("id",))


def parent_table(parents: Iterable[job_pb2.ParentJob]) -> Table:
    """Return parent jobs, one a row."""
    head = ("id", "name", "state", "children", "ended", "failed", "created", "time")
    rows = [
        (
            parent.id,
            parent.name,
            spoken(parent, "state") + (" (paused)" if parent.paused else ""),
            str(parent.counts.total),
            str(ended(parent.counts)),
            str(parent.counts.failed or ""),
            _clock(parent, "create_time"),
            seconds(duration(parent)),
        )
        for parent in parents
    ]
    return table(head, rows, keep=("id",))


def ended(counts: job_pb2.ChildJobCounts) -> int:
    """Return how many children are in a final state."""
    return counts.completed + counts.failed + counts.cancelled + counts.skipped


def attempt_table(attempts: Iterable[job_pb2.Attempt]) -> Table:
    """Return the attempts of a child job."""
    head = ("attempt", "worker", "outcome", "created", "time", "why")
    rows = [
        (
            str(one.attempt),
            one.worker_name,
            spoken(one, "outcome"),
            _clock(one, "create_time"),
            seconds(duration(one)),
            one.failure.message or one.reason,
        )
        for one in attempts
    ]
    return table(head, rows)


def worker_table(workers: Iterable[fleet_service_pb2.Worker]) -> Table:
    """Return workers, one a row."""
    head = ("worker", "state", "slots", "host", "pid", "version", "targets", "last heartbeat")
    rows = [
        (
            one.worker_name,
            spoken(one, "state"),
            f"{one.slots_used} of {one.slots}",
            one.host,
            str(one.pid),
            one.build,
            _some(one.targets),
            _clock(one, "heartbeat_time"),
        )
        for one in workers
    ]
    return table(head, rows)


def target_table(targets: Iterable[fleet_service_pb2.Target]) -> Table:
    """Return targets, one a row."""
    head = ("target", "engine", "version", "state", "pending", "live", "workers", "operations")
    rows = [
        (
            one.name,
            one.engine,
            one.engine_version,
            "paused" if one.paused else "served" if one.workers else "not served",
            str(one.pending),
            str(one.live),
            _some(one.workers),
            ", ".join(operation.name for operation in one.operations),
        )
        for one in targets
    ]
    return table(head, rows)


def _outcome(child: job_pb2.ChildJob) -> Row:
    rebuilt = child.after.get("indexes_rebuilt")
    return (
        child.operation,
        f"{child.target}.{child.object}" if child.HasField("object") else child.target,
        spoken(child, "state"),
        spoken(child, "verdict"),
        _change(child, "file_bytes", size=True),
        _change(child, "free_pages"),
        _change(child, "stat_rows"),
        "" if rebuilt is None else _number(rebuilt),
        seconds(duration(child)),
    )


def _change(child: job_pb2.ChildJob, measure: str, *, size: bool = False) -> str:
    shown = [
        decimal(int(values[measure])) if size else _number(values[measure])
        for values in (child.before, child.after)
        if measure in values
    ]
    return " -> ".join(shown)


def _number(value: float) -> str:
    return f"{value:g}" if not value.is_integer() else f"{int(value)}"


def _why(child: job_pb2.ChildJob) -> str:
    if child.state == job_pb2.CHILD_JOB_STATE_FAILED and child.failure.message:
        return child.failure.message
    return child.reason


def _waits_for(child: job_pb2.ChildJob) -> str:
    if child.state != job_pb2.CHILD_JOB_STATE_PENDING:
        return ""
    return ": ".join(part for part in (spoken(child, "wait_reason"), child.wait_detail) if part)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:ELLIPSIS_TARGETS])
    more = len(names) - ELLIPSIS_TARGETS
    return f"{shown} and {more} more" if more > 0 else shown


def _clock(message: job_pb2.ParentJob | job_pb2.Attempt | fleet_service_pb2.Worker, field: str) -> str:
    value = moment(message, field)
    return "" if value is None else value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
