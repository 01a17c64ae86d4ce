"""Which lock keys are held."""

from collections.abc import Callable, Iterable, Mapping

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
    """Which keys are held, by live leases and by what was picked in this claim.

    Args:
        tx: the transaction of the claim.
        trusting: whether keys that were not looked up are taken for free, because they will be compared anyway.
    """

    def __init__(self, tx: UnitOfWork, *, trusting: bool = False) -> None:
        self._tx = tx
        self._held: dict[str, bool | None] = {}
        self._foreseen: set[str] = set()
        self._trusting = trusting

    def foresee(self, keys: Iterable[str]) -> None:
        """Look these keys up together with the first that has to be."""
        self._foreseen.update(keys)

    def learn(self, keys: Iterable[str]) -> None:
        """Find out at once which of these keys are held, and of those that were foreseen."""
        wanted = self._foreseen.union(keys)
        self._foreseen.clear()
        self.ask(wanted)(wanted)

    def ask(self, keys: Iterable[str]) -> Callable[[set[str]], None]:
        """Ask which of these keys are held; what is returned takes in what is said of those that it is given."""
        unknown = sorted(set(keys) - self._held.keys())
        held = self._tx.ask(LIVE_LOCKS, keys=unknown) if unknown else tuple

        def learn(about: set[str]) -> None:
            self._held.update(dict.fromkeys(about.intersection(unknown)))
            self._held.update((row.key, bool(row.exclusive)) for row in held() if row.key in about)

        return learn

    def free(self, locks: Locks) -> bool:
        """Tell whether none of the keys is held in a way that conflicts."""
        if not self._trusting and not locks.keys() <= self._held.keys():
            self.learn(locks)
        for key, exclusive in locks.items():
            held = self._held.get(key)
            if held is not None and (held or exclusive):
                return False
        return True

    def take(self, locks: Locks) -> bool:
        """Take keys, or none of them if one conflicts."""
        if not self.free(locks):
            return False
        self._held.update(locks)
        return True
