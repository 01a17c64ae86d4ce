"""Messages of the contract, one factory per life stage."""

from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from overhaul.v1 import job_pb2, job_service_pb2

PARENT_ID = "01890000-0000-7000-8000-000000000001"
CHILD_ID = "01890000-0000-7000-8000-000000000002"


def at(seconds: float) -> Timestamp:
    """Return a time so many seconds after 2026-01-31T04:05:06Z."""
    return Timestamp(seconds=1_769_832_306 + int(seconds), nanos=int(seconds % 1 * 1e9))


def parent_job(**fields: Any) -> job_pb2.ParentJob:
    """Return a running parent job."""
    defaults: dict[str, Any] = {
        "id": PARENT_ID,
        "type": "database_maintenance_parent",
        "name": "vacuum of app",
        "state": job_pb2.PARENT_JOB_STATE_RUNNING,
        "counts": job_pb2.ChildJobCounts(total=1, running=1),
        "sequence": 3,
        "create_time": at(0),
        "start_time": at(1),
    }
    return job_pb2.ParentJob(**defaults | fields)


def totals(**fields: Any) -> job_pb2.Totals:
    """Return the totals of one attempt, of an engine that does not tell who waited for it."""
    defaults: dict[str, Any] = {
        "attempts": 1,
        "sized_attempts": 1,
        "bytes_reclaimed": 3_000_000.0,
        "bytes_grown": 0.0,
        "lock_wait_attempts": 1,
        "lock_wait_seconds": 0.5,
    }
    return job_pb2.Totals(**defaults | fields)


def lock_waiter(**fields: Any) -> job_pb2.LockWaiter:
    """Return sessions that waited for a table."""
    defaults: dict[str, Any] = {
        "application": "billing",
        "user": "app",
        "object": "public.orders",
        "lock_mode": "RowExclusiveLock",
        "seconds": 12.5,
        "sessions": 3,
    }
    return job_pb2.LockWaiter(**defaults | fields)


def completed_parent_job(**fields: Any) -> job_pb2.ParentJob:
    """Return a parent job whose one child completed."""
    defaults: dict[str, Any] = {
        "state": job_pb2.PARENT_JOB_STATE_COMPLETED,
        "counts": job_pb2.ChildJobCounts(total=1, completed=1),
        "totals": totals(),
        "end_time": at(3.5),
    }
    return parent_job(**defaults | fields)


def child_job(**fields: Any) -> job_pb2.ChildJob:
    """Return a pending child job."""
    defaults: dict[str, Any] = {
        "id": CHILD_ID,
        "parent_job_id": PARENT_ID,
        "type": "database_maintenance_operation",
        "operation": "vacuum",
        "target": "app",
        "state": job_pb2.CHILD_JOB_STATE_PENDING,
        "create_time": at(0),
    }
    return job_pb2.ChildJob(**defaults | fields)


def completed_child_job(**fields: Any) -> job_pb2.ChildJob:
    """Return a child job that vacuumed its target."""
    defaults: dict[str, Any] = {
        "state": job_pb2.CHILD_JOB_STATE_COMPLETED,
        "verdict": job_pb2.VERDICT_EFFECTIVE,
        "reason": "freed 3 MB",
        "attempts": 1,
        "before": {"file_bytes": 4_000_000.0, "free_pages": 750.0, "load": 0.5},
        "after": {"file_bytes": 1_000_000.0, "free_pages": 0.0},
        "start_time": at(1),
        "end_time": at(3.25),
    }
    return child_job(**defaults | fields)


def failed_child_job(**fields: Any) -> job_pb2.ChildJob:
    """Return a child job that failed for good."""
    defaults: dict[str, Any] = {
        "state": job_pb2.CHILD_JOB_STATE_FAILED,
        "attempts": 3,
        "failure": job_pb2.Failure(
            reason="SQLITE_FULL",
            message="the disk is full; free 4 MB",
            category=job_pb2.FAILURE_CATEGORY_DISK_FULL,
            retryable=True,
        ),
        "start_time": at(1),
        "end_time": at(2),
    }
    return child_job(**defaults | fields)


def snapshot(parent: job_pb2.ParentJob, *, resynced: bool = False) -> job_service_pb2.WatchParentJobResponse:
    """Return the first message of a watch."""
    whole = job_service_pb2.WatchSnapshot(parent_job=parent, resynced=resynced)
    return job_service_pb2.WatchParentJobResponse(snapshot=whole)


def child_event(sequence: int, **fields: Any) -> job_service_pb2.WatchParentJobResponse:
    """Return the event of a child that began to run."""
    defaults: dict[str, Any] = {
        "child_job_id": CHILD_ID,
        "operation": "vacuum",
        "target": "app",
        "previous_state": job_pb2.CHILD_JOB_STATE_LEASED,
        "state": job_pb2.CHILD_JOB_STATE_RUNNING,
        "attempts": 1,
        "version": sequence,
    }
    change = job_service_pb2.ChildJobChange(**defaults | fields)
    return _event(sequence, child_job=change)


def completed_child_event(sequence: int, **fields: Any) -> job_service_pb2.WatchParentJobResponse:
    """Return the event of a child that completed."""
    defaults: dict[str, Any] = {
        "previous_state": job_pb2.CHILD_JOB_STATE_RUNNING,
        "state": job_pb2.CHILD_JOB_STATE_COMPLETED,
        "verdict": job_pb2.VERDICT_EFFECTIVE,
        "reason": "freed 3 MB",
    }
    return child_event(sequence, **defaults | fields)


def parent_event(sequence: int, parent: job_pb2.ParentJob) -> job_service_pb2.WatchParentJobResponse:
    """Return the event of a parent job that now stands as given."""
    change = job_service_pb2.ParentJobChange(
        state=parent.state,
        paused=parent.paused,
        cancel_requested=parent.cancel_requested,
        counts=parent.counts,
    )
    return _event(sequence, parent_job=change)


def bulk_event(sequence: int, counts: job_pb2.ChildJobCounts) -> job_service_pb2.WatchParentJobResponse:
    """Return the event of children that ended together."""
    change = job_service_pb2.BulkChange(
        kind=job_service_pb2.BULK_CHANGE_KIND_ENDED, affected=counts.cancelled, counts=counts
    )
    return _event(sequence, bulk=change)


def progress(**fields: Any) -> job_service_pb2.WatchParentJobResponse:
    """Return the progress of the child."""
    update = job_service_pb2.ProgressUpdate(
        child_job_id=CHILD_ID, operation="vacuum", target="app", progress=job_pb2.Progress(**fields)
    )
    return job_service_pb2.WatchParentJobResponse(progress=update)


def _event(sequence: int, **change: Any) -> job_service_pb2.WatchParentJobResponse:
    event = job_service_pb2.JobEvent(sequence=sequence, event_time=at(sequence), **change)
    return job_service_pb2.WatchParentJobResponse(event=event)
