import asyncio
from collections.abc import Iterable, Iterator

from worker_service.domain.manager import HeldLease
from worker_service.execution import Execution


class Inventory:
    """The leases this worker holds, and the slots they fill. Used by the event loop alone.

    A lease fills its slot until its report was answered, or, when it was lost, until its thread has ended.

    Args:
        slots: how many leases may be held at once.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._held: dict[str, Execution] = {}
        self._watchers: list[asyncio.Event] = []

    def __iter__(self) -> Iterator[Execution]:
        return iter(tuple(self._held.values()))

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, lease_id: str) -> bool:
        return lease_id in self._held

    @property
    def free(self) -> int:
        """How many slots are free."""
        return max(0, self._slots - len(self._held))

    @property
    def running(self) -> int:
        """How many operations have not ended."""
        return sum(1 for execution in self._held.values() if execution.report is None)

    def add(self, execution: Execution) -> None:
        """Take a lease in."""
        self._held[execution.lease.lease_id] = execution
        self.notify()

    def remove(self, executions: Iterable[Execution]) -> None:
        """Let leases go, and their slots with them."""
        for execution in executions:
            self._held.pop(execution.lease.lease_id, None)
        self.notify()

    def get(self, lease_id: str) -> Execution | None:
        """Return the lease's execution, ``None`` when it is not held any more."""
        return self._held.get(lease_id)

    def listing(self) -> tuple[HeldLease, ...]:
        """Return what a heartbeat has to name: everything but what the manager itself said is gone."""
        return tuple(execution.listed() for execution in self._held.values() if not execution.lost)

    def watch(self) -> asyncio.Event:
        """Return an event that is set at every change; whoever waits on it clears it first."""
        event = asyncio.Event()
        self._watchers.append(event)
        return event

    def notify(self) -> None:
        """Wake all who watch."""
        for event in self._watchers:
            event.set()
