"""What a PostgreSQL store holds, read past the managers, and what has to be true of it."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, LiteralString

import psycopg
from psycopg.rows import dict_row

from overhaul.v1 import job_pb2 as job

_OUTCOMES = {
    None: job.OUTCOME_UNSPECIFIED,
    "completed": job.OUTCOME_COMPLETED,
    "failed": job.OUTCOME_FAILED,
    "cancelled": job.OUTCOME_CANCELLED,
    "released": job.OUTCOME_RELEASED,
    "skipped": job.OUTCOME_SKIPPED,
}
_FINAL = ("completed", "failed", "cancelled", "skipped")
# One statement, so that all of it looks at one moment.
_ALWAYS: LiteralString = """
SELECT 'slots', session_id FROM leases JOIN sessions ON sessions.id = session_id
 GROUP BY session_id, slots HAVING count(*) > slots
UNION ALL
SELECT 'target', target FROM leases JOIN targets ON name = target
 GROUP BY target, max_parallel HAVING count(*) > max_parallel
UNION ALL
SELECT 'parent', parent_id FROM leases JOIN parent_jobs ON parent_jobs.id = parent_id
 WHERE max_parallel > 0 GROUP BY parent_id, max_parallel HAVING count(*) > max_parallel
UNION ALL
SELECT 'lock', key FROM live_locks GROUP BY key HAVING count(*) > 1 AND bool_or(exclusive)
UNION ALL
SELECT 'queued', child_id FROM queue WHERE child_id IN (SELECT child_id FROM leases)
UNION ALL
SELECT 'live', parent_id FROM parent_counts
 WHERE leased + running <> (SELECT count(*) FROM leases WHERE leases.parent_id = parent_counts.parent_id)
UNION ALL
SELECT 'counts', parent_id FROM parent_counts
 WHERE (pending + leased + running, completed, failed, cancelled) <>
  (SELECT count(*) FILTER (WHERE state = 'pending'), count(*) FILTER (WHERE state = 'completed'),
           count(*) FILTER (WHERE state = 'failed'), count(*) FILTER (WHERE state = 'cancelled')
     FROM child_jobs WHERE child_jobs.parent_id = parent_counts.parent_id)
UNION ALL
SELECT 'events', parent_id FROM parent_counts
 WHERE (sequence, sequence) <>
  (SELECT count(*), max(sequence) FROM events WHERE events.parent_id = parent_counts.parent_id)
"""


@dataclass
class Watchman:
    """Looks at the store again and again, and notes whatever must never be."""

    url: str
    looks: int = 0
    found: list[tuple[Any, ...]] = field(default_factory=list)

    async def go_on(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as connection:
                    while not stop.is_set():
                        await self._look(connection)
                        await asyncio.sleep(0.1)
            except psycopg.OperationalError:
                await asyncio.sleep(0.1)  # the server is away, or has cut this connection too

    async def _look(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self.found += await (await connection.execute(_ALWAYS)).fetchall()
        self.looks += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """All that is kept of the jobs of a run."""

    parents: Mapping[str, Mapping[str, Any]]
    children: Sequence[Mapping[str, Any]]
    attempts: Mapping[tuple[str, int], job.Attempt]
    stale: Sequence[tuple[str, int]]
    left: Mapping[str, int]
    violations: Sequence[tuple[Any, ...]]

    def children_of(self, parent_id: str) -> list[Mapping[str, Any]]:
        return [child for child in self.children if child["parent_id"] == parent_id]


def read(url: str) -> Kept:
    """Read a store that is at rest."""
    with psycopg.connect(url, row_factory=dict_row) as connection:
        left = {
            name: row["n"]
            for name in ("leases", "live_locks", "queue")
            for row in connection.execute(f"SELECT count(*) AS n FROM {name}".encode())
        }
        attempts = connection.execute("SELECT * FROM attempts ORDER BY child_id, attempt").fetchall()
        stale = connection.execute("SELECT child_id, attempt FROM stale_reports").fetchall()
        return Kept(
            parents={row["id"]: row for row in connection.execute("SELECT * FROM parent_jobs")},
            children=connection.execute("SELECT * FROM child_jobs ORDER BY parent_id, position").fetchall(),
            attempts={(row["child_id"], row["attempt"]): _attempt(row) for row in attempts},
            stale=[(row["child_id"], row["attempt"]) for row in stale],
            left=left,
            violations=[tuple(row.values()) for row in connection.execute(_ALWAYS)],
        )


def _attempt(row: Mapping[str, Any]) -> job.Attempt:
    attempt = job.Attempt(
        attempt=row["attempt"],
        lease_id=row["lease_id"],
        worker_name=row["worker_name"],
        outcome=_OUTCOMES[row["outcome"]],
    )
    attempt.create_time.FromMicroseconds(row["create_time"])
    attempt.end_time.FromMicroseconds(row["end_time"])
    return attempt


def assert_at_rest(kept: Kept) -> None:
    """Assert that no lease, lock or waiting child outlived the jobs, and that each child ended."""
    assert kept.left == {"leases": 0, "live_locks": 0, "queue": 0}
    assert not kept.violations
    assert {child["state"] for child in kept.children} <= set(_FINAL)
    assert all(parent["end_time"] for parent in kept.parents.values())


def assert_recorded_by_the_lease(kept: Kept) -> None:
    """Assert that every attempt ended once, each under a lease of its own, and none by a stale report."""
    assert len({attempt.lease_id for attempt in kept.attempts.values()}) == len(kept.attempts)
    assert len(kept.attempts) == sum(child["attempts"] for child in kept.children)
    for child in kept.children:
        outcomes = [kept.attempts[child["id"], number].outcome for number in range(1, child["attempts"] + 1)]
        completed = child["state"] == "completed"
        assert [outcome == job.OUTCOME_COMPLETED for outcome in outcomes] == [
            completed and number == len(outcomes) for number in range(1, len(outcomes) + 1)
        ], child
        assert child["state"] != "failed" or outcomes[-1] == job.OUTCOME_FAILED, child
    for key in kept.stale:
        assert kept.attempts[key].outcome == job.OUTCOME_UNSPECIFIED, key
