"""A manager that dies after a number of transactions, and another that finds what it left."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from manager_service.domain.errors import StoreUnavailableError
from manager_service.domain.fleet import Timing
from manager_service.domain.ports import JobStore, ParentJobFilter
from manager_service.domain.states import parent_job_state
from tests.doubles import CountingIds, FakeClock
from tests.factories import World
from tests.stores import open_any_store

MOST = 100


@dataclass(slots=True)
class Death:
    """Counts transactions; after the last one that is left none begins any more."""

    left: int
    came: bool = False

    def of(self, store: Any) -> None:
        for transactions in {*store._backend.leasing, *store._backend.steering}:
            self._of(transactions)

    def _of(self, transactions: Any) -> None:
        begin, commit = transactions.begin, transactions.commit

        def begin_while_alive() -> Any:
            if not self.left:
                self.came = True
                raise StoreUnavailableError("the manager died")
            return begin()

        def commit_and_count(tx: Any) -> Any:
            hints = commit(tx)
            self.left -= 1
            return hints

        transactions.begin, transactions.commit = begin_while_alive, commit_and_count


async def crash_everywhere(new_url: Callable[[], str], scenario: Callable[[World], Awaitable[None]]) -> int:
    """Let the manager die after each transaction of a scenario in turn; return how many those were.

    What the next manager finds must be whole every time: see ``check``.
    """
    for transactions in range(MOST):
        clock, ids, timing = FakeClock(), CountingIds(), Timing()
        url, death = new_url(), Death(transactions)

        def open_it(url: str = url, clock: FakeClock = clock, ids: CountingIds = ids) -> JobStore:
            return open_any_store(url, clock=clock, ids=ids, timing=Timing())

        world = World(open_it(), clock, timing)
        death.of(world.store)
        with suppress(StoreUnavailableError):
            await scenario(world)
        await world.store.close()
        world.store = open_it()
        try:
            await check(world)
        finally:
            await world.store.close()
        if not death.came:
            return transactions
    raise AssertionError("the scenario does not end")


async def check(world: World) -> None:
    """Show that every parent job's state is what its children say, and that counts and events agree."""
    for parent in await world.store.parent_jobs(ParentJobFilter(), limit=MOST):
        await world.check(parent.id)
        policy = parent.spec.failure_policy
        decided = parent_job_state(parent.counts, policy, cancel_requested=parent.cancel_requested)
        assert parent.state is decided, f"a crash left {parent} though its children say {decided}"
