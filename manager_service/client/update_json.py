"""The lines of `watch --output json`: one object per update, told apart by its ``update``."""

from typing import assert_never

from manager_service.client.as_json import Json, counts, parent_job, progress, time
from manager_service.client.words import word
from overhaul.v1 import job_service_pb2


def update(one: job_service_pb2.WatchParentJobResponse) -> Json:
    """Return an update of a watch; one of a newer contract has ``update`` null."""
    match one.WhichOneof("update"):
        case "snapshot":
            snapshot = one.snapshot
            sequence = snapshot.parent_job.sequence
            return {
                "update": "snapshot",
                "sequence": sequence,
                "resynced": snapshot.resynced,
                "parent_job": parent_job(snapshot.parent_job),
            }
        case "event":
            return _event(one.event)
        case "progress":
            return {
                "update": "progress",
                "child_job_id": one.progress.child_job_id,
                "operation": one.progress.operation,
                "target": one.progress.target,
                "object": one.progress.object if one.progress.HasField("object") else None,
                **progress(one.progress.progress),
            }
        case "events" | None:  # `Streams` takes several events apart
            return {"update": None}
        case other:
            assert_never(other)


def _event(event: job_service_pb2.JobEvent) -> Json:
    head: Json = {
        "update": event.WhichOneof("change"),
        "sequence": event.sequence,
        "event_time": time(event, "event_time"),
    }
    match event.WhichOneof("change"):
        case "child_job":
            return head | _child_job(event.child_job)
        case "parent_job":
            return head | _parent_job(event.parent_job)
        case "bulk":
            bulk = event.bulk
            return head | {
                "kind": word(bulk, "kind"),
                "affected": bulk.affected,
                "counts": counts(bulk.counts),
            }
        case None:
            return head
        case other:
            assert_never(other)


def _child_job(change: job_service_pb2.ChildJobChange) -> Json:
    return {
        "child_job_id": change.child_job_id,
        "operation": change.operation,
        "target": change.target,
        "object": change.object if change.HasField("object") else None,
        "previous_state": word(change, "previous_state"),
        "state": word(change, "state"),
        "attempts": change.attempts,
        "version": change.version,
        "verdict": word(change, "verdict"),
        "reason": change.reason,
    }


def _parent_job(change: job_service_pb2.ParentJobChange) -> Json:
    return {
        "state": word(change, "state"),
        "paused": change.paused,
        "cancel_requested": change.cancel_requested,
        "counts": counts(change.counts),
    }
