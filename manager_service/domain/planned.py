"""What a report of an ``inspect`` child becomes: the children that it plans, or a failure."""

from collections.abc import Mapping
from dataclasses import replace

from manager_service.domain.durations import Doing
from manager_service.domain.inspection import INSPECT, MAX_CHILDREN, children_of
from manager_service.domain.leases import Report
from manager_service.domain.model import ChildJob, Failure, ParentJob, Span
from manager_service.domain.states import FailureCategory, Outcome
from manager_service.domain.thresholds import PlanError


def planned(report: Report, child: ChildJob, parent: ParentJob, expected: Mapping[Doing, Span]) -> Report:
    """Return a report with the children that come of what was found; where that cannot be, as one of a failure.

    ``expected`` is what operations on objects of the target are expected to take.
    """
    if report.inspection is None or report.outcome is not Outcome.COMPLETED or child.operation != INSPECT:
        return replace(report, inspection=None)
    try:
        children = children_of(parent.spec, child.target, report.inspection, expected)
    except PlanError as error:
        return failed_report(report, _failure("CANNOT_PLAN", str(error), FailureCategory.INVALID))
    return replace(report, inspection=None, planned=children)


def failed_report(report: Report, failure: Failure) -> Report:
    """Return a report as one of a failure."""
    return replace(report, outcome=Outcome.FAILED, verdict=None, failure=failure, inspection=None, planned=None)


def nothing_found() -> Failure:
    """Return the failure of an ``inspect`` that its worker calls completed without telling what it found."""
    text = (
        "the worker did not tell what it found; it is another release than the manager, or its engine has a defect"
    )
    return _failure("NOTHING_FOUND", text, FailureCategory.INTERNAL)


def too_many(number: int) -> Failure:
    """Return the failure of an ``inspect`` that found more than its parent job may have of children."""
    text = f"{number} more children would make more than {MAX_CHILDREN} of the parent job: select fewer objects"
    return _failure("CANNOT_PLAN", text, FailureCategory.INVALID)


def _failure(reason: str, message: str, category: FailureCategory) -> Failure:
    return Failure(reason=reason, message=message, category=category, retryable=False)
