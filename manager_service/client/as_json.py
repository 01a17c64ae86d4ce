"""The JSON of `--output json`: its keys are an interface, and one place writes them."""

import json
import math
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from google.protobuf.message import Message

from manager_service.client.estimates import expected
from manager_service.client.words import moment, remaining, word
from overhaul.v1 import fleet_service_pb2, job_pb2, job_service_pb2

Json = dict[str, Any]

STATES = ("total", "pending", "leased", "running", "completed", "failed", "cancelled", "skipped")
SUMS = ("bytes_reclaimed", "bytes_grown", "lock_wait_seconds", "blocking_seconds")


def text(value: Json) -> str:
    """Return an object on one line, in ASCII, so that no name can steer a terminal."""
    return json.dumps(value, ensure_ascii=True, separators=(", ", ": "))


def job(parent: job_pb2.ParentJob, children: Iterable[job_pb2.ChildJob] | None = None) -> Json:
    """Return what `run`, `get` and (without children) `create` print."""
    whole: Json = {"parent_job": parent_job(parent)}
    if children is not None:
        whole["child_jobs"] = [child_job(child) for child in children]
    return whole


def parent_job(parent: job_pb2.ParentJob) -> Json:
    """Return a parent job."""
    return {
        "id": parent.id or None,
        "type": parent.type,
        "name": parent.name,
        "state": word(parent, "state"),
        "counts": counts(parent.counts),
        "totals": totals(parent.totals),
        "dry_run": parent.dry_run,
        "create_time": time(parent, "create_time"),
        "start_time": time(parent, "start_time"),
        "end_time": time(parent, "end_time"),
    }


def child_job(child: job_pb2.ChildJob) -> Json:
    """Return a child job."""
    return {
        "id": child.id or None,
        "type": child.type,
        "operation": child.operation,
        "target": child.target,
        "object": child.object if child.HasField("object") else None,
        "state": word(child, "state"),
        "verdict": word(child, "verdict"),
        "reason": child.reason,
        "wait_reason": word(child, "wait_reason"),
        "wait_detail": child.wait_detail,
        "attempts": child.attempts,
        "failure": failure(child.failure) if child.HasField("failure") else None,
        "before": measures(child.before),
        "after": measures(child.after),
        "lock_waiters": [lock_waiter(one) for one in child.lock_waiters],
        "start_time": time(child, "start_time"),
        "end_time": time(child, "end_time"),
        "expected_seconds": seconds(expected(child)),
        "progress": progress(child.progress) if child.HasField("progress") else None,
    }


def progress(how_far: job_pb2.Progress) -> Json:
    """Return how far an operation is; ``None`` stands for what its engine does not tell."""
    return {
        "phase": how_far.phase,
        "done": how_far.done if how_far.HasField("done") else None,
        "total": how_far.total if how_far.HasField("total") else None,
        "unit": how_far.unit,
        "remaining_seconds": seconds(remaining(how_far)),
    }


def totals(sums: job_pb2.Totals) -> Json:
    """Return what the attempts of a parent job did in all; a sum is ``None`` where none told it."""
    message: Message = sums
    known = {name: getattr(sums, name) if message.HasField(name) else None for name in SUMS}
    return {
        "attempts": sums.attempts,
        "sized_attempts": sums.sized_attempts,
        "lock_wait_attempts": sums.lock_wait_attempts,
        "blocking_attempts": sums.blocking_attempts,
        **{name: None if value is None else _number(value) for name, value in known.items()},
        "lock_waiters": [lock_waiter(one) for one in sums.lock_waiters],
    }


def lock_waiter(one: job_pb2.LockWaiter) -> Json:
    """Return sessions that waited for a lock of an operation."""
    return {
        "application": one.application,
        "user": one.user,
        "object": one.object,
        "lock_mode": one.lock_mode,
        "seconds": _number(one.seconds),
        "sessions": one.sessions,
    }


def attempt(one: job_pb2.Attempt) -> Json:
    """Return an attempt of a child job."""
    return {
        "attempt": one.attempt,
        "worker_name": one.worker_name,
        "outcome": word(one, "outcome"),
        "reason": one.reason,
        "failure": failure(one.failure) if one.HasField("failure") else None,
        "create_time": time(one, "create_time"),
        "start_time": time(one, "start_time"),
        "end_time": time(one, "end_time"),
    }


def failure(why: job_pb2.Failure) -> Json:
    """Return why an attempt failed."""
    return {
        "reason": why.reason,
        "message": why.message,
        "category": word(why, "category"),
        "retryable": why.retryable,
    }


def counts(children: job_pb2.ChildJobCounts) -> Json:
    """Return the children by state."""
    return {state: getattr(children, state) for state in STATES}


def measures(values: Mapping[str, float]) -> Json:
    """Return measures by name; the wire carries doubles, whole numbers are printed as such."""
    return {name: _number(value) for name, value in sorted(values.items())}


def _number(value: float) -> float | None:
    if not math.isfinite(value):
        return None  # JSON has no word for it
    return int(value) if value.is_integer() else value


def worker(one: fleet_service_pb2.Worker) -> Json:
    """Return a worker."""
    return {
        "worker_name": one.worker_name,
        "instance_id": one.instance_id,
        "state": word(one, "state"),
        "build": one.build,
        "host": one.host,
        "pid": one.pid,
        "labels": dict(one.labels),
        "slots": one.slots,
        "slots_used": one.slots_used,
        "targets": list(one.targets),
        "create_time": time(one, "create_time"),
        "heartbeat_time": time(one, "heartbeat_time"),
        "poll_time": time(one, "poll_time"),
    }


def target(one: fleet_service_pb2.Target) -> Json:
    """Return a target."""
    return {
        "name": one.name,
        "engine": one.engine,
        "engine_version": one.engine_version,
        "identity": one.identity,
        "labels": dict(one.labels),
        "max_parallel": one.max_parallel,
        "operations": [operation.name for operation in one.operations],
        "paused": one.paused,
        "workers": list(one.workers),
        "pending": one.pending,
        "live": one.live,
    }


def log_lines(chunk: job_service_pb2.ReadLogsResponse) -> Iterable[Json]:
    """Yield the entries of a log, one object each."""
    for place, entry in enumerate(chunk.entries, chunk.offset):
        yield {
            "attempt": chunk.attempt,
            "offset": place,
            "time": time(entry, "time"),
            "level": entry.level,
            "message": entry.message,
        }


def seconds(span: timedelta | None) -> float | None:
    """Return a span; ``None`` where it is not known."""
    return None if span is None else span.total_seconds()


def time(message: Message, field: str) -> str | None:
    """Return a timestamp field in ISO 8601, such as ``2026-01-31T04:05:06.789000Z``; ``None`` when unset."""
    value = moment(message, field)
    return None if value is None else value.isoformat(timespec="microseconds").replace("+00:00", "Z")
