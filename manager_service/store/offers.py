"""What sessions offer, as claims come to need it."""

from collections.abc import Iterable, Mapping
from threading import Lock
from typing import Any

from sqlalchemy import bindparam, select

from manager_service.store.held_back import held_back_of
from manager_service.store.locks import Locks
from manager_service.store.rows import locks_by_operation, locks_of_child
from manager_service.store.statements import Among, Statement
from manager_service.store.tables import session_targets
from manager_service.store.unit_of_work import UnitOfWork

# Of how many targets of sessions it is kept what is offered on them.
_OFFERS_KEPT = 20_000

_st = session_targets.c
OFFERS = Statement(
    select(_st.target, _st.operations).where(
        _st.session_id == bindparam("session_id"), Among(_st.target, "targets")
    )
)


class KeptOffers:
    """What sessions offer on targets, as it was read by earlier claims.

    A registration gives what is offered an id of its own, so what is kept of an earlier one is not found again.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], Mapping[str, Locks]] = {}
        # Each connection of a manager claims in a thread of its own.
        self._lock = Lock()

    def get(self, offers_id: str, target: str) -> Mapping[str, Locks] | None:
        """Return the keys of each operation on a target, if they are kept."""
        return self._kept.get((offers_id, target))

    def keep(self, offers_id: str, target: str, locks: Mapping[str, Locks]) -> None:
        """Keep the keys of each operation on a target; the oldest give way."""
        with self._lock:
            if len(self._kept) >= _OFFERS_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[offers_id, target] = locks


class Offers:
    """The keys that the operations take which a session offers; read for the few targets that a claim comes to.

    ``held_back`` are the targets on which it is granted nothing all the same.

    Args:
        tx: the transaction of the claim.
        session: the row of the session.
        kept: what was read by earlier claims.
    """

    def __init__(self, tx: UnitOfWork, session: Any, kept: KeptOffers) -> None:
        self._tx = tx
        self.session_id = session.id
        self.held_back = held_back_of(session.held_back)
        self._id = session.offers_id
        self._kept = kept
        self._known: dict[str, Mapping[str, Locks]] = {}

    def on(self, target: str) -> Mapping[str, Locks]:
        """Return the keys of each operation on a served target."""
        if target not in self._known:
            self.read([target])
        return self._known[target]

    def read(self, names: Iterable[str]) -> None:
        """Find out what is offered on served targets, all at once."""
        missing = set(names) - self._known.keys()
        for name in missing:
            if (locks := self._kept.get(self._id, name)) is not None:
                self._known[name] = locks
        if missing := missing - self._known.keys():
            for row in self._tx.rows(OFFERS, session_id=self.session_id, targets=sorted(missing)):
                self._known[row.target] = locks = locks_by_operation(row.operations)
                # Without an id it was registered at an older release.
                if self._id is not None:
                    self._kept.keep(self._id, row.target, locks)

    def locks_of(self, head: Any) -> Locks | None:
        """Return the keys that a head takes, its own or its operation's; ``None`` if that is not offered."""
        offered = self.on(head.target).get(head.operation)
        return offered if offered is None or head.locks is None else locks_of_child(head.locks)
