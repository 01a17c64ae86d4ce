"""The targets that sessions hold back: what their workers' owners throttle."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from sqlalchemy import bindparam, func, select, update

from manager_service.store.rows import mapping_of, text_of
from manager_service.store.statements import Among, Statement
from manager_service.store.tables import is_ready, queue, sessions
from manager_service.store.unit_of_work import UnitOfWork

_HOLD_BACK = Statement(
    update(sessions).where(sessions.c.id == bindparam("of")).values(held_back=bindparam("held_back"))
)
_WAITING = Statement(
    select(queue.c.target, func.count().label("heads"))
    .with_hint(queue, "INDEXED BY ix_queue_ready_target")
    .where(is_ready, Among(queue.c.target, "targets"))
    .group_by(queue.c.target)
)


@lru_cache(maxsize=4_096)
def held_back_of(text: str | None) -> Mapping[str, str]:
    """Return why a session holds targets back, by name, from what its row says."""
    return mapping_of(text or "")


def hold_back(tx: UnitOfWork, session: Any, held_back: Mapping[str, str]) -> None:
    """Note which targets a session holds back from now on, and wake polls for those that it lets go."""
    text = text_of(dict(sorted(held_back.items()))) or None
    if text == session.held_back:
        return
    tx.post(_HOLD_BACK, of=session.id, held_back=text)
    if let_go := held_back_of(session.held_back).keys() - held_back.keys():
        wake(tx, sorted(let_go))


def wake(tx: UnitOfWork, targets: Iterable[str]) -> None:
    """Wake polls for what is ready on targets that can be leased from now on."""
    for row in tx.rows(_WAITING, targets=list(targets)):
        tx.ready_many(row.target, row.heads)
