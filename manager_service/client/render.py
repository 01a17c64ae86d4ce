"""Tables for people. Names and reasons are foreign text: escaped, and never read as markup."""

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TextIO

from rich.console import Console
from rich.filesize import decimal

from manager_service.client.estimates import expected
from manager_service.client.groups import Group
from manager_service.client.tables import Column, FittedTable
from manager_service.client.words import clock, duration, how_far, number, place, safe, seconds, spoken, waits_for
from overhaul.v1 import job_pb2

WIDTH_OF_A_FILE = 200
WHOLE = 36
"""As wide as an id: a column that is never broken."""

_PLANNED = "planned"
"""How the reason of a child begins that a dry run planned."""

_UNENDED = frozenset(
    {job_pb2.CHILD_JOB_STATE_PENDING, job_pb2.CHILD_JOB_STATE_LEASED, job_pb2.CHILD_JOB_STATE_RUNNING}
)

Row = Sequence[str]

_BYTES = "bytes"
_MEASURES = (
    Column(head=_BYTES, least=len("4.0 MB ->")),
    *(Column(head=head) for head in ("dead rows", "free pages", "stat rows", "indexes", "waited", "blocked")),
)
"""The measures that are shown of every child: before and after, and time in locks."""


def console(file: TextIO | None = None) -> Console:
    """Return a console that takes text as it is; into a file or pipe it writes wide lines."""
    stream = file or sys.stdout
    wide = None if stream.isatty() or "COLUMNS" in os.environ else WIDTH_OF_A_FILE
    return Console(file=stream, markup=False, highlight=False, emoji=False, width=wide)


def outcome_table(children: Iterable[job_pb2.ChildJob]) -> FittedTable:
    """Return what each child did to its target: before and after."""
    columns = (
        Column(head="operation"),
        Column(head="target", least=8),
        Column(head="result"),
        *_MEASURES,
        Column(head="time", least=WHOLE),
    )
    rows = [(child.operation, place(child), _result(child), *_measured(child), _time(child)) for child in children]
    return FittedTable(columns, rows)


def group_table(groups: Iterable[Group]) -> FittedTable:
    """Return what many children did that are alike, a row for an operation on a target."""
    columns = (
        Column(head="operation"),
        Column(head="target", least=8),
        Column(head="objects"),
        Column(head="result"),
        *_MEASURES,
        Column(head="time", least=WHOLE),
    )
    rows = [
        (
            one.operation,
            one.target,
            f"{len(one.children):,}",
            one.result,
            *_measured(one.sums),
            seconds(one.time),
        )
        for one in groups
    ]
    return FittedTable(columns, rows)


def reasons(children: Iterable[job_pb2.ChildJob]) -> list[str]:
    """Return a line per child that has something to explain."""
    return [f"{name_of(child)}: {safe(why)}" for child in children if (why := _why(child))]


def name_of(child: job_pb2.ChildJob) -> str:
    """Return operation, target and object as people call a child job, safe to print."""
    return safe(f"{child.operation} {place(child)}")


def child_table(children: Iterable[job_pb2.ChildJob]) -> FittedTable:
    """Return the children with their ids and what they did, and why those that wait do so."""
    columns = (
        Column(head="id", least=WHOLE),
        Column(head="child job", least=8),
        Column(head="result"),
        *(replace(column, spare=column.head != _BYTES) for column in _MEASURES),
        Column(head="attempts", spare=True),
        Column(head="time", least=WHOLE),
        Column(head="expected", least=WHOLE, spare=True),
    )
    shown = list(children)
    known = any(child.HasField("expected_duration") for child in shown)
    rows = [
        (
            child.id,
            f"{child.operation} {place(child)}",
            _result(child),
            *_measured(child),
            str(child.attempts),
            _time(child),
            _expected(child) if known and child.state in _UNENDED else "",
        )
        for child in shown
    ]
    return FittedTable(columns, rows)


def is_inspection(child: job_pb2.ChildJob) -> bool:
    """Tell whether a child finds out which others there are to be."""
    return child.operation == "inspect"


def was_skipped(child: job_pb2.ChildJob) -> bool:
    """Tell whether a child that was to find the others did not, so that nothing is done to its target at all."""
    return is_inspection(child) and child.state == job_pb2.CHILD_JOB_STATE_SKIPPED


def is_planned(child: job_pb2.ChildJob) -> bool:
    """Tell whether a child of a dry run would be done; of another the reason says why not."""
    return child.state == job_pb2.CHILD_JOB_STATE_PENDING or child.reason.startswith(_PLANNED)


def plan_table(children: Iterable[job_pb2.ChildJob]) -> FittedTable:
    """Return what would be done in the order of the plan, with the statements, and what not and why."""
    columns = (
        Column(head="operation"),
        Column(head="object", least=8),
        Column(head="size"),
        Column(head="expected", least=WHOLE),
        Column(head="plan", least=WHOLE),
    )
    shown = list(children)
    known = any(child.HasField("expected_duration") for child in shown)
    rows = [
        (
            child.operation,
            place(child),
            decimal(int(child.before["size_bytes"])) if "size_bytes" in child.before else "",
            _expected(child) if known and is_planned(child) else "",
            "; ".join(child.reason.removeprefix(_PLANNED).removeprefix(": ").splitlines()) or "planned",
        )
        for child in shown
    ]
    return FittedTable(columns, rows)


def parent_table(parents: Iterable[job_pb2.ParentJob]) -> FittedTable:
    """Return parent jobs, one a row."""
    columns = (
        Column(head="id", least=WHOLE),
        Column(head="name", least=8),
        Column(head="state"),
        Column(head="children"),
        Column(head="failed"),
        Column(head="created", spare=True),
        Column(head="time", least=WHOLE, spare=True),
    )
    rows = [
        (
            parent.id,
            parent.name,
            spoken(parent, "state")
            + (" (paused)" if parent.paused else "")
            + (" (plan)" if parent.dry_run else ""),
            f"{ended(parent.counts)}/{parent.counts.total}",
            str(parent.counts.failed or ""),
            clock(parent, "create_time"),
            seconds(duration(parent)),
        )
        for parent in parents
    ]
    return FittedTable(columns, rows)


def ended(counts: job_pb2.ChildJobCounts) -> int:
    """Return how many children are in a final state."""
    return counts.completed + counts.failed + counts.cancelled + counts.skipped


def attempt_table(attempts: Iterable[job_pb2.Attempt]) -> FittedTable:
    """Return the attempts of a child job."""
    columns = [Column(head=head) for head in ("attempt", "worker", "outcome", "created", "time", "why")]
    rows = [
        (
            str(one.attempt),
            one.worker_name,
            spoken(one, "outcome"),
            clock(one, "create_time"),
            seconds(duration(one)),
            one.failure.message or one.reason,
        )
        for one in attempts
    ]
    return FittedTable(columns, rows)


def _measured(child: job_pb2.ChildJob) -> Row:
    """Return the columns of ``_MEASURES``; a time in locks that nobody spent is left out."""
    rebuilt = child.after.get("indexes_rebuilt")
    waited, blocked = (child.after.get(name, 0.0) for name in ("lock_wait_seconds", "blocking_seconds"))
    return (
        _change(child, "file_bytes" if "file_bytes" in child.before else "size_bytes", size=True),
        _change(child, "dead_rows"),
        _change(child, "free_pages"),
        _change(child, "stat_rows"),
        "" if rebuilt is None else number(rebuilt),
        f"{waited:.1f} s" if waited else "",
        f"{blocked:.1f} s" if blocked else "",
    )


def _change(child: job_pb2.ChildJob, measure: str, *, size: bool = False) -> str:
    shown = [
        decimal(int(values[measure])) if size else number(values[measure])
        for values in (child.before, child.after)
        if measure in values
    ]
    return " -> ".join(shown)


def _time(child: job_pb2.ChildJob) -> str:
    return seconds(duration(child))


def _why(child: job_pb2.ChildJob) -> str:
    if child.state == job_pb2.CHILD_JOB_STATE_FAILED and child.failure.message:
        return child.failure.message
    return child.reason


def _expected(child: job_pb2.ChildJob) -> str:
    return seconds(expected(child)) or "unknown"


def _result(child: job_pb2.ChildJob) -> str:
    parts = [spoken(child, "state"), spoken(child, "verdict")]
    if child.state == job_pb2.CHILD_JOB_STATE_PENDING:
        parts += [waits_for(child), child.wait_detail]
    if child.HasField("progress"):
        parts.append(how_far(child.progress))
    return ": ".join(part for part in parts if part)
