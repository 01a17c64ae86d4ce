"""How far running operations are: told by heartbeats, kept with the live lease."""

import json
from collections.abc import Sequence

from sqlalchemy import select

from manager_service.domain.model import Progress, RunningProgress
from manager_service.store.statements import Among, Connection, Statement
from manager_service.store.tables import leases

_l = leases.c
PROGRESS = Statement(
    select(_l.parent_id, _l.child_id, _l.attempt, _l.progress)
    .with_hint(leases, "INDEXED BY ix_leases_parent_id")
    .where(Among(_l.parent_id, "parents"), _l.progress.is_not(None))
)


def progress_text(progress: Progress | None) -> str | None:
    """Return a progress as JSON."""
    if progress is None:
        return None
    return json.dumps([progress.phase, progress.done, progress.total, progress.unit])


def progress_of(text: str | None) -> Progress | None:
    """Return the progress that ``progress_text`` wrote."""
    if text is None:
        return None
    phase, done, total, unit = json.loads(text)
    return Progress(phase=phase, done=done, total=total, unit=unit)


def read_progress(connection: Connection, parent_job_ids: Sequence[str]) -> tuple[RunningProgress, ...]:
    """Return how far the running children of these parent jobs are, those that told it."""
    found = connection.rows(PROGRESS, parents=list(parent_job_ids))
    return tuple(
        RunningProgress(
            parent_job_id=row.parent_id,
            child_job_id=row.child_id,
            attempt=row.attempt,
            progress=progress,
        )
        for row in found
        if (progress := progress_of(row.progress)) is not None
    )
