"""What has to hold of a target and of a parent job for a head to be leased; every statement of a claim asks it."""

from sqlalchemy import Boolean, bindparam, func, literal_column, select

from manager_service.store.tables import child_jobs, leases, parent_jobs, queue, targets

_t, _p = targets.c, parent_jobs.c
_live_on_target = (
    select(func.count()).select_from(leases).where(leases.c.target == _t.name).correlate(targets).scalar_subquery()
)
ROOM = (_t.max_parallel - _live_on_target).label("room")
# What a claim has to know of a head, and of its child to lease it.
HEAD = (
    *(queue.c[name] for name in ("child_id", "parent_id", "target", "operation", "rank", "turn", "hold")),
    *(child_jobs.c[name] for name in ("options", "object", "locks", "attempts", "failures", "losses", "version")),
    _p.max_parallel,
    ROOM,
)
NOT_PAUSED = ~_t.paused
# On PostgreSQL, names are hashed into advisory locks. Two with one hash keep each other waiting, no more.
SEED = 7_420
# Shares the parent job of a head that is about to be held, unless somebody has it or waits to have it for himself:
# the order of `Exclusion`.
SHARED = func.pg_try_advisory_xact_lock_shared(
    func.hashtextextended(queue.c.parent_id, literal_column(str(SEED))), type_=Boolean
)
# Not a plain comparison: a planner that knows a few parent jobs would go through all that run, for each head.
IS_OPEN = (
    _p.state.concat(literal_column("''")).in_([literal_column("'running'"), literal_column("'planning'")]),
    (_p.deadline.is_(None)) | (_p.deadline > bindparam("now")),
)
