"""What a job did, in few lines: bytes given back, time in locks, and who was kept waiting."""

from collections.abc import Iterable

from rich.filesize import decimal

from manager_service.client.render import is_inspection
from manager_service.client.tables import Column, FittedTable
from manager_service.client.words import number, safe
from overhaul.v1 import job_pb2


def totals_lines(totals: job_pb2.Totals, children: Iterable[job_pb2.ChildJob]) -> list[str]:
    """Return what the attempts of a parent job did in all; nothing where none reported measures.

    Where no child completed that was to do something, it goes without saying that it did nothing: told is what did
    change all the same, and who was kept waiting.
    """
    if not totals.attempts:
        return []
    completed = any(
        child.state == job_pb2.CHILD_JOB_STATE_COMPLETED and not is_inspection(child) for child in children
    )
    lines = (
        (_bytes(totals), totals.bytes_reclaimed or totals.bytes_grown),
        (_locks(totals), totals.blocking_seconds),
    )
    return [*(line for line, tells in lines if completed or tells), *waiter_lines(totals.lock_waiters)]


def waiter_lines(waiters: Iterable[job_pb2.LockWaiter]) -> list[str]:
    """Return a line for each name of sessions that were kept waiting."""
    return [f"  {_waiter(waiter)}" for waiter in waiters]


def measure_table(child: job_pb2.ChildJob) -> FittedTable:
    """Return every measure of a child job by its name, before and after."""
    columns = (Column(head="measure"), Column(head="before"), Column(head="after"))
    names = sorted({*child.before, *child.after})
    return FittedTable(
        columns,
        [
            (
                name,
                *(
                    _measure(name, values[name]) if name in values else ""
                    for values in (child.before, child.after)
                ),
            )
            for name in names
        ],
    )


def _bytes(totals: job_pb2.Totals) -> str:
    if not totals.sized_attempts:
        return "in all: how many bytes were reclaimed is not known"
    reclaimed = f"in all: reclaimed {decimal(int(totals.bytes_reclaimed))}"
    grown = f", and {decimal(int(totals.bytes_grown))} were added elsewhere" if totals.bytes_grown else ""
    return f"{reclaimed}{grown}{_told_by(totals.sized_attempts, totals.attempts)}"


def _locks(totals: job_pb2.Totals) -> str:
    if not totals.lock_wait_attempts:
        return "locks: how long it waited is not known"
    told = _told_by(totals.lock_wait_attempts, totals.attempts)
    return f"locks: waited {totals.lock_wait_seconds:.1f} s{told}; {_others(totals)}"


def _others(totals: job_pb2.Totals) -> str:
    if not totals.blocking_attempts:
        return "whether others waited is not known"
    told = _told_by(totals.blocking_attempts, totals.attempts)
    if not totals.blocking_seconds:
        return f"nobody was seen waiting for it{told}"
    return f"others were seen waiting for it for {totals.blocking_seconds:.1f} s{told}"


def _told_by(number_of: int, attempts: int) -> str:
    """Say how many attempts told it, unless all did."""
    return "" if number_of == attempts else f" (told by {number_of} of {attempts} attempts)"


def _waiter(waiter: job_pb2.LockWaiter) -> str:
    user = f" ({waiter.user})" if waiter.user and waiter.application else ""
    who = f"{waiter.application or waiter.user or 'a session without a name'}{user}"
    mode = f" ({waiter.lock_mode})" if waiter.lock_mode else ""
    what = f" for {waiter.object}{mode}" if waiter.object else ""
    sessions = f", {waiter.sessions} sessions" if waiter.sessions > 1 else ""
    return safe(f"{who} waited {waiter.seconds:.1f} s{what}{sessions}")


def _measure(name: str, value: float) -> str:
    return decimal(int(value)) if name.endswith("_bytes") else number(value)
