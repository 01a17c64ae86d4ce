"""What a watcher is told, for the wire."""

from collections.abc import Sequence
from functools import lru_cache
from typing import assert_never

from manager_service.api.convert import enums, jobs
from manager_service.api.convert.scalars import timestamp
from manager_service.domain.events import BulkChange, ChildJobChange, Event, ParentJobChange
from manager_service.domain.watch import Batch, ProgressUpdate, Snapshot, Update
from overhaul.v1 import job_service_pb2


def watch_responses(update: Update, *, several: bool) -> Sequence[job_service_pb2.WatchParentJobResponse]:
    """Convert what a watcher is told to messages; with ``several`` events in a row are one message."""
    match update:
        case Snapshot():
            snapshot = job_service_pb2.WatchSnapshot(
                parent_job=jobs.parent_job(update.parent_job), resynced=update.resynced
            )
            return [job_service_pb2.WatchParentJobResponse(snapshot=snapshot)]
        case ProgressUpdate():
            return [job_service_pb2.WatchParentJobResponse(progress=_progress_update(update))]
        case Batch():
            return _told_together(update) if several and len(update.events) > 1 else _told_singly(update)
        case _:
            assert_never(update)


# Those who watch the same parent job are told the same batches.
@lru_cache(maxsize=128)
def _told_together(batch: Batch) -> Sequence[job_service_pb2.WatchParentJobResponse]:
    together = job_service_pb2.JobEvents(events=map(event, batch.events))
    return [job_service_pb2.WatchParentJobResponse(events=together)]


@lru_cache(maxsize=128)
def _told_singly(batch: Batch) -> Sequence[job_service_pb2.WatchParentJobResponse]:
    return [job_service_pb2.WatchParentJobResponse(event=event(value)) for value in batch.events]


def _progress_update(update: ProgressUpdate) -> job_service_pb2.ProgressUpdate:
    return job_service_pb2.ProgressUpdate(
        child_job_id=update.child_job_id,
        operation=update.operation,
        target=update.target,
        object=update.object,
        progress=jobs.progress(update.progress, update.remaining),
    )


def event(value: Event) -> job_service_pb2.JobEvent:
    """Convert an event."""
    message = job_service_pb2.JobEvent(sequence=value.sequence, event_time=timestamp(value.time))
    match value.change:
        case ChildJobChange():
            message.child_job.CopyFrom(_child_job_change(value.change))
        case ParentJobChange():
            message.parent_job.CopyFrom(_parent_job_change(value.change))
        case BulkChange():
            message.bulk.CopyFrom(_bulk_change(value.change))
        case _:
            assert_never(value.change)
    return message


def _child_job_change(change: ChildJobChange) -> job_service_pb2.ChildJobChange:
    return job_service_pb2.ChildJobChange(
        child_job_id=change.child_job_id,
        operation=change.operation,
        target=change.target,
        object=change.object,
        previous_state=enums.CHILD_JOB_STATE.out(change.previous_state),
        state=enums.CHILD_JOB_STATE.out(change.state),
        attempts=change.attempts,
        version=change.version,
        verdict=enums.VERDICT.out(change.verdict),
        reason=change.reason,
    )


def _parent_job_change(change: ParentJobChange) -> job_service_pb2.ParentJobChange:
    return job_service_pb2.ParentJobChange(
        state=enums.PARENT_JOB_STATE.out(change.state),
        paused=change.paused,
        cancel_requested=change.cancel_requested,
        counts=jobs.counts(change.counts),
    )


def _bulk_change(change: BulkChange) -> job_service_pb2.BulkChange:
    return job_service_pb2.BulkChange(
        kind=enums.BULK_CHANGE_KIND.out(change.kind),
        affected=change.affected,
        counts=jobs.counts(change.counts),
    )
