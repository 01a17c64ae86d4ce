import asyncio

from manager_service.api.fleet_service import FleetService
from manager_service.api.job_service import JobService
from manager_service.api.lease_service import LeaseService
from manager_service.api.server import Server, Services
from manager_service.config import Settings
from manager_service.domain.ports import Clock, Hints, IdSource, JobStore
from manager_service.housekeeping import Housekeeping, Loop
from manager_service.leasing import LeaseDesk
from manager_service.orchestrator import Creation, Durations, LogReader, Sweeps, Timers, Watches, log_ends
from manager_service.orchestrator.bells import Bells
from manager_service.orchestrator.durations import LEARN_EVERY
from manager_service.progress import ProgressHub, ProgressLooks


class Manager:
    """A manager on an open store: everything wired, started and stopped in order.

    Args:
        settings: what the operator set.
        store: the job store; whoever opened it closes it after the stop.
        clock: where time comes from.
        ids: where ids and chance come from.
    """

    def __init__(self, settings: Settings, store: JobStore, *, clock: Clock, ids: IdSource) -> None:
        self._settings = settings
        self._store = store
        one_of_several = not settings.store.startswith("sqlite:")
        progress = ProgressHub(clock)
        self._parents, self._logs = Bells(ids), Bells(ids)
        self._desk = LeaseDesk(store, progress, clock=clock, ids=ids, timing=settings.timing)
        self._sweeps, self._timers, self._durations = Sweeps(store), Timers(store), Durations(store)
        loops = (
            Loop("sweeps", self._sweeps.turn),
            Loop("timers", self._timers.turn),
            Loop("durations", self._durations.turn, every=LEARN_EVERY),
            Loop("lost_workers", self._desk.lost_workers.turn, every=settings.timing.heartbeat_interval),
            *([Loop("progress", ProgressLooks(store, progress, ids).turn)] if one_of_several else []),
        )
        jobs = JobService(
            store=store,
            creation=Creation(store, clock),
            watches=Watches(store, progress, self._parents),
            progress=progress,
            logs=LogReader(store, self._logs),
        )
        services = Services(jobs=jobs, leases=LeaseService(self._desk), fleet=FleetService(store, self._desk))
        self._server = Server(services, ids, one_of_several=one_of_several)
        self._housekeeping = Housekeeping(
            store,
            timing=settings.timing,
            retention=settings.retention,
            loops=loops,
            tell=self._server.lease_health,
        )
        self._hurry = asyncio.Event()

    async def start(self) -> int:
        """Restore what is in memory, start to serve, and return the port.

        Raises:
            AddressInUseError: the address cannot be bound.
        """
        await self._desk.start()
        self._store.subscribe(self._hear)
        port = await self._server.start(self._settings.listen)
        self._housekeeping.start()
        return port

    def hurry(self) -> None:
        """Let a stop wait no longer for calls that have not ended."""
        self._hurry.set()

    async def stop(self) -> None:
        """Turn clients away, end what hangs, let calls end, and stop the loops."""
        await self._server.retire()
        self._desk.stop()
        self._parents.stop()
        self._logs.stop()
        await self._server.stop(self._settings.shutdown_grace, self._hurry)
        await self._housekeeping.stop()
        await self._durations.finish()

    def _hear(self, hints: Hints) -> None:
        self._desk.hear(hints)
        self._parents.ring(hints.parents)
        self._logs.ring(hints.logs)
        self._sweeps.add(hints.ending)
        if hints.due or hints.parents:
            self._timers.look(soon=hints.due)
        log_ends(hints.ended)
        self._durations.note(hints.completed)
