"""What a fleet lived through: who was granted what and when, how long that waited, and what was run twice."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Container, Iterable
from typing import Any

from manager_service.domain.leases import Lease, ReportStatus
from manager_service.domain.model import ParentJob
from tests.simulation.fleet.stand_in import StandIn
from tests.simulation.invariants import demand

# A count is compared with its limit at each grant, within its transaction, by the database itself.
_WATCH_LIMITS = (
    "CREATE TEMP TABLE over_limit (what TEXT, name TEXT, live INTEGER)",
    """CREATE TEMP TRIGGER watch_limits AFTER INSERT ON main.leases BEGIN
        INSERT INTO over_limit SELECT 'target', NEW.target, count(*) FROM leases WHERE target = NEW.target
            HAVING count(*) > (SELECT max_parallel FROM targets WHERE name = NEW.target);
        INSERT INTO over_limit SELECT 'parent job', NEW.parent_id, count(*) FROM leases
            WHERE parent_id = NEW.parent_id
            HAVING count(*) > (SELECT nullif(max_parallel, 0) FROM parent_jobs WHERE id = NEW.parent_id);
    END""",
)


class Ledger:
    """Hears what workers do, and remembers it."""

    def __init__(self) -> None:
        self.grants: dict[str, list[float]] = defaultdict(list)
        self.ends: dict[str, list[float]] = defaultdict(list)
        self.waited: list[tuple[str, str, float]] = []
        self.runs: Counter[str] = Counter()
        self.last_grant: dict[str, float] = {}
        self.statuses: Counter[ReportStatus] = Counter()
        self._ready_since: dict[tuple[str, str], float] = {}
        self._raw: Any = None

    def created(self, parent: ParentJob, targets: Iterable[str]) -> None:
        """Note since when the first child on each target is ready."""
        now = asyncio.get_running_loop().time()
        for target in targets:
            self._ready_since[parent.id, target] = now

    def granted(self, worker: StandIn, lease: Lease) -> None:
        """Note a grant, and how long its child had been first in its lane."""
        now, lane = asyncio.get_running_loop().time(), (lease.parent_job_id, lease.target)
        self.grants[lease.parent_job_id].append(now)
        self.waited.append((*lane, now - self._ready_since.pop(lane, now)))
        self.runs[lease.child_job_id] += 1
        self.last_grant[lease.child_job_id] = now

    def answered(self, worker: StandIn, lease: Lease, status: ReportStatus) -> None:
        """Note an end; what follows in the lane is ready from now on."""
        now = asyncio.get_running_loop().time()
        self.statuses[status] += 1
        self.ends[lease.parent_job_id].append(now)
        self._ready_since[lease.parent_job_id, lease.target] = now

    def waits(
        self, *, parents: Container[str] | None = None, targets: Container[str] | None = None
    ) -> list[float]:
        """Return how long children waited that were granted, of some parent jobs and targets."""
        return [
            wait
            for parent_id, target, wait in self.waited
            if (parents is None or parent_id in parents) and (targets is None or target in targets)
        ]

    def watch_limits(self, raw: Any) -> None:
        """Let the connection that a manager writes by compare each grant with the limits."""
        self._raw = raw
        for statement in _WATCH_LIMITS:
            raw.execute(statement)

    def check_limits(self) -> None:
        """Demand that no limit was ever exceeded; while the manager lives."""
        over = self._raw.execute("SELECT * FROM over_limit").fetchall()
        demand(not over, "never more live leases than max_parallel", *over[:3])

    def twice(self) -> list[str]:
        """Return the children that were run more than once."""
        return [child_id for child_id, times in self.runs.items() if times > 1]
