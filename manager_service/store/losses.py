"""Find out which workers are lost, so that each loss is told once, whichever manager finds it."""

from sqlalchemy import bindparam, select, update

from manager_service.domain.fleet import Losses
from manager_service.store.fleet import OPEN, SLOTS_USED, workers_of
from manager_service.store.statements import Among, Statement
from manager_service.store.tables import sessions
from manager_service.store.unit_of_work import UnitOfWork

_s = sessions.c
_LOST = Statement(
    select(sessions, SLOTS_USED.label("slots_used"))
    .where(Among(_s.state, "states"), _s.heartbeat_time < bindparam("since"), _s.lost_time.is_(None))
    .order_by(_s.worker_name)
    .limit(bindparam("limit"))
    # One that another manager holds beats there, or is found lost there.
    .with_for_update(skip_locked=True)
)
_NOTE = Statement(update(sessions).where(Among(_s.id, "ids")).values(lost_time=bindparam("now")))


def note_losses(tx: UnitOfWork, *, limit: int) -> Losses:
    """Find workers that are lost, and note that they were found."""
    rows = tx.rows(_LOST, states=OPEN, since=tx.now - tx.timing.lease_duration, limit=limit)
    if rows:
        tx.run(_NOTE, ids=[row.id for row in rows], now=tx.now)
    return Losses(workers=workers_of(tx, rows, tx.timing, tx.now) if rows else (), time=tx.now)
