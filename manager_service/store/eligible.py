"""What has to hold of a target and of a parent job for a head to be leased; every statement of a claim asks it."""

from sqlalchemy import bindparam, func, literal_column, select

from manager_service.store.tables import leases, parent_jobs, targets

_t, _p = targets.c, parent_jobs.c
_live_on_target = (
    select(func.count()).select_from(leases).where(leases.c.target == _t.name).correlate(targets).scalar_subquery()
)
ROOM = (_t.max_parallel - _live_on_target).label("room")
NOT_PAUSED = _t.paused == literal_column("0")
IS_OPEN = (_p.state == "running", (_p.deadline.is_(None)) | (_p.deadline > bindparam("now")))
