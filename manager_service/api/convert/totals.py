"""What the attempts of a parent job did in all, for the wire."""

from collections.abc import Iterable
from dataclasses import asdict

from manager_service.domain.totals import LockWaiter, Totals
from overhaul.v1 import job_pb2


def totals(value: Totals) -> job_pb2.Totals:
    """Convert totals; a sum that no attempt told stays unset."""
    return job_pb2.Totals(
        attempts=value.attempts,
        sized_attempts=value.sized,
        bytes_reclaimed=value.reclaimed if value.sized else None,
        bytes_grown=value.grown if value.sized else None,
        lock_wait_attempts=value.waited,
        lock_wait_seconds=value.lock_wait_seconds if value.waited else None,
        blocking_attempts=value.blocked,
        blocking_seconds=value.blocking_seconds if value.blocked else None,
        lock_waiters=lock_waiters(value.waiters),
    )


def lock_waiters(values: Iterable[LockWaiter]) -> list[job_pb2.LockWaiter]:
    """Convert who waited for locks."""
    return [job_pb2.LockWaiter(**asdict(value)) for value in values]
