"""Which lock keys are held."""

from collections.abc import Iterable, Mapping

from sqlalchemy import case, func, select

from manager_service.store.statements import Among, Statement
from manager_service.store.tables import live_locks
from manager_service.store.unit_of_work import UnitOfWork

# The keys that an operation takes, each exclusive or not.
Locks = Mapping[str, bool]

LIVE_LOCKS = Statement(
    select(live_locks.c.key, func.max(case((live_locks.c.exclusive, 1), else_=0)).label("exclusive"))
    .where(Among(live_locks.c.key, "keys"))
    .group_by(live_locks.c.key)
)


class LockTable:
    """Which keys are held, by live leases and by what was picked in this claim."""

    def __init__(self, tx: UnitOfWork) -> None:
        self._tx = tx
        self._held: dict[str, bool | None] = {}

    def learn(self, keys: Iterable[str]) -> None:
        """Find out at once which of these keys are held."""
        unknown = sorted(set(keys) - self._held.keys())
        if unknown:
            self._held.update(dict.fromkeys(unknown))
            for row in self._tx.rows(LIVE_LOCKS, keys=unknown):
                self._held[row.key] = bool(row.exclusive)

    def free(self, locks: Locks) -> bool:
        """Tell whether none of the keys is held in a way that conflicts."""
        if not locks.keys() <= self._held.keys():
            self.learn(locks)
        for key, exclusive in locks.items():
            held = self._held[key]
            if held is not None and (held or exclusive):
                return False
        return True

    def take(self, locks: Locks) -> bool:
        """Take keys, or none of them if one conflicts."""
        if not self.free(locks):
            return False
        self._held.update(locks)
        return True
