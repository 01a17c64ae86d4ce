"""How long children will take, from what the manager learned of such ones. An estimate, and no promise."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from manager_service.client.words import moment
from overhaul.v1 import job_pb2

_LIVE = frozenset({job_pb2.CHILD_JOB_STATE_LEASED, job_pb2.CHILD_JOB_STATE_RUNNING})
_OPEN = frozenset({job_pb2.CHILD_JOB_STATE_PENDING, *_LIVE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """How long children will take, but for so many of which nothing is known."""

    span: timedelta
    unknown: int


def expected(child: job_pb2.ChildJob) -> timedelta | None:
    """Return how long a child that has not run is expected to take; ``None`` where that is not known."""
    return child.expected_duration.ToTimedelta() if child.HasField("expected_duration") else None


def in_all(children: Sequence[job_pb2.ChildJob], *, at_once: int = 1) -> Estimate | None:
    """Return how long children take, so many at once at most; ``None`` where nothing is known of any."""
    spans = [(child, span) for child in children if (span := expected(child)) is not None]
    if not spans:
        return None
    return Estimate(span=_together(spans, at_once), unknown=len(children) - len(spans))


def time_left(
    parent_job: job_pb2.ParentJob, children: Iterable[job_pb2.ChildJob], now: datetime
) -> Estimate | None:
    """Return how long a parent job will run on with as many children at once as now.

    That is ``None`` unless it runs, and something is known of at least half of the children that have not ended.
    """
    if parent_job.state != job_pb2.PARENT_JOB_STATE_RUNNING or parent_job.paused:
        return None
    unended = [child for child in children if child.state in _OPEN]
    at_once = sum(child.state in _LIVE for child in unended)
    left = [(child, span) for child in unended if (span := _left(child, now)) is not None]
    if not at_once or 2 * len(left) < len(unended):
        return None
    span = _together(left, at_once)
    return Estimate(span=span, unknown=len(unended) - len(left)) if span else None


def _left(child: job_pb2.ChildJob, now: datetime) -> timedelta | None:
    """Return how much is left of a child; of one that takes longer than expected nothing."""
    span, begun = expected(child), moment(child, "start_time")
    if span is None or begun is None or child.state not in _LIVE:
        return span
    return max(span - max(now - begun, timedelta(0)), timedelta(0))


def _together(spans: Iterable[tuple[job_pb2.ChildJob, timedelta]], at_once: int) -> timedelta:
    """Return how long children take, so many at once, but those on one object one after the other."""
    objects: dict[tuple[str, str], timedelta] = {}
    for child, span in spans:
        place = child.target, child.object
        objects[place] = objects.get(place, timedelta(0)) + span
    whole = sum(objects.values(), timedelta(0))
    return max(whole / at_once, *objects.values(), timedelta(0))
