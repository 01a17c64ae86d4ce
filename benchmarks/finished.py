"""A job store in which a million children have ended: one parent job ends in earnest, its rows are then copied."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pysqlite3 import dbapi2

from manager_service.app.system import SystemClock, SystemIds
from manager_service.domain.fleet import Timing
from manager_service.domain.ports import JobStore
from manager_service.store import open_store
from tests.factories import FakeWorker, plan, registration, report_of

CHILDREN = 1_000_000
_OPERATIONS = ("vacuum", "analyze")
_TARGETS_PER_WORKER = 1_000
# Ids begin with the time in units of 65 seconds; so far apart, those of two copies never meet.
_APART = 16
# What a parent job leaves behind, and where ids of its own are in it.
LEFT = {
    "parent_jobs": {"id"},
    "parent_counts": {"parent_id"},
    "parent_targets": {"parent_id"},
    "child_jobs": {"id", "parent_id"},
    "attempts": {"child_id"},
    "events": {"parent_id", "child_id"},
}


def fill(path: Path, targets: Sequence[str]) -> None:
    """Make a store with parent jobs over the targets, two children each, until a million children have ended."""
    asyncio.run(_end_one(path, targets))
    raw: Any = dbapi2.connect(str(path), isolation_level=None)
    raw.create_function("older", 2, _older, deterministic=True)
    for pragma in ("synchronous = OFF", "cache_size = -500000", "foreign_keys = OFF"):
        raw.execute(f"PRAGMA {pragma}")
    raw.execute("BEGIN")
    for table in LEFT:
        raw.execute(f"CREATE TEMP TABLE one_{table} AS SELECT * FROM main.{table}")
        # The oldest first, so that the rows are laid down in the order in which they would have come.
        for copy in reversed(range(1, CHILDREN // (len(targets) * len(_OPERATIONS)))):
            _copy(raw, table, copy)
    raw.execute("COMMIT")
    raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw.close()


def _copy(raw: Any, table: str, copy: int) -> None:
    """Add the rows of the one parent job again, as those of an older one."""
    columns = [row[1] for row in raw.execute(f"PRAGMA main.table_xinfo({table})")]
    values = [f'older("{name}", {copy})' if name in LEFT[table] else f'"{name}"' for name in columns]
    raw.execute(f"INSERT INTO main.{table} SELECT {', '.join(values)} FROM one_{table}")


def _older(text: str | None, copy: int) -> str | None:
    return text and f"{int(text[:8], 16) - copy * _APART:08x}{text[8:]}"


async def _end_one(path: Path, targets: Sequence[str]) -> None:
    store = open_store(
        f"sqlite:///{path}", clock=SystemClock(), ids=SystemIds(), timing=Timing(), synchronous="normal"
    )
    await end_one(store, targets)


async def end_one(store: JobStore, targets: Sequence[str]) -> None:
    """Let a parent job of two children for each target end in a store, and close it."""
    await store.create_parent_job(plan(*targets, operations=_OPERATIONS))
    for begin in range(0, len(targets), _TARGETS_PER_WORKER):
        await _work(store, targets[begin : begin + _TARGETS_PER_WORKER])
    await store.close()


async def _work(store: JobStore, targets: Sequence[str]) -> None:
    known = registration(*targets, worker_name=targets[0], slots=len(targets))
    worker = FakeWorker(store, await store.register(known), known)
    while leases := await worker.acquire(len(targets)):
        await store.report(worker.session_id, [report_of(lease) for lease in leases], None)
    await store.deregister(worker.session_id)
