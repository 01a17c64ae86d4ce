from collections.abc import Iterable

import structlog

from manager_service.domain.model import SECOND, ParentJob

log = structlog.get_logger("manager.orchestrator")


def log_ends(parent_jobs: Iterable[ParentJob]) -> None:
    """Log the end of parent jobs, each in one line; of several managers the one whose transaction ended it."""
    for parent_job in parent_jobs:
        _log_end(parent_job)


def _log_end(parent_job: ParentJob) -> None:
    counts = parent_job.counts
    begin = parent_job.create_time if parent_job.start_time is None else parent_job.start_time
    end = begin if parent_job.end_time is None else parent_job.end_time
    log.info(
        "parent job ended",
        parent_job_id=parent_job.id,
        name=parent_job.spec.name,
        state=parent_job.state.value,
        children=counts.total,
        completed=counts.completed,
        failed=counts.failed,
        cancelled=counts.cancelled,
        skipped=counts.skipped,
        seconds=round((end - begin) / SECOND, 3),
    )
