"""The processes of a simulated world, each made of the real composition and restarted by a supervisor."""

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, cast
from unittest.mock import patch

from manager_service.api.server import Services
from manager_service.app.manager import Manager
from manager_service.config import Settings
from manager_service.domain.fleet import Timing
from manager_service.domain.model import SECOND
from manager_service.domain.ports import Hints, IdSource
from manager_service.store import open_store
from tests.simulation.machine import VirtualClock
from tests.simulation.network import Channel, Network
from tests.simulation.operations import SimulatedEngine, VirtualThreads
from tests.simulation.virtual_loop import Process, VirtualLoop
from worker_service.catalogue import Catalogue, Identity, Served
from worker_service.domain.errors import RegistrationRefusedError
from worker_service.domain.target import Target
from worker_service.lifecycle import Stage
from worker_service.manager_client import GrpcManager
from worker_service.worker import Timing as Patience
from worker_service.worker import Worker

TIMING = Timing(
    heartbeat_interval=3 * SECOND, lease_duration=14 * SECOND, accept_within=6 * SECOND, poll_window=15 * SECOND
)


class _RepeatableManager(Manager):
    """A manager to whom hints come in the same order whatever the hashes of this Python process are."""

    def _hear(self, hints: Hints) -> None:
        ordered = {name: tuple(sorted(getattr(hints, name))) for name in ("parents", "sessions", "logs", "ending")}
        ready = dict(sorted(hints.ready.items()))
        super()._hear(Hints(ready=ready, ended=hints.ended, **cast("Any", ordered)))


class Door(Protocol):
    """Where a manager is reached while it serves."""

    def open(self, manager: Process, services: Services) -> None:
        """Let a manager be found."""

    def close(self) -> None:
        """Let the manager be gone."""

    async def idle(self) -> None:
        """Wait until the manager has answered what it was asked."""


class _Server:
    """The place of the gRPC server in a manager."""

    def __init__(self, services: Services, ids: IdSource, *, network: Door, process: Process) -> None:
        self._services = services
        self._network = network
        self._process = process

    async def start(self, address: str) -> int:
        self._network.open(self._process, self._services)
        return 0

    async def retire(self) -> None:
        """Tell nobody."""

    async def lease_health(self, serving: bool) -> None:
        """Tell nobody."""

    async def stop(self, grace: int, hurry: asyncio.Event) -> None:
        await self._network.idle()
        self._network.close()


class ManagerHost:
    """Runs managers on one store file, one after the other."""

    def __init__(
        self,
        loop: VirtualLoop,
        network: Door,
        clock: VirtualClock,
        ids: IdSource,
        path: Path,
        *,
        settings: Settings | None = None,
    ) -> None:
        self._loop = loop
        self._network = network
        self._clock = clock
        self._ids = ids
        self._path = path
        self._settings = settings or Settings(timing=TIMING)
        self._manager: Manager | None = None
        self.process = Process("manager")
        self.process.end()
        self.all: list[Process] = []
        self.store: Any = None

    def start(self) -> None:
        """Open the store and serve."""
        self.process = Process("manager")
        self.process.on_death = self._died
        self.all.append(self.process)
        self.process.context.run(self._open, self.process)

    def _open(self, process: Process) -> None:
        self.store = open_store(
            f"sqlite:///{self._path}",
            clock=self._clock,
            ids=self._ids,
            timing=self._settings.timing,
            synchronous="normal",
        )

        def server(services: Services, ids: IdSource, **_: bool) -> _Server:
            return _Server(services, ids, network=self._network, process=process)

        with patch("manager_service.app.manager.Server", server):
            self._manager = _RepeatableManager(self._settings, self.store, clock=self._clock, ids=self._ids)
        process.spawn(self._manager.start())

    def stop(self) -> None:
        """Ask the manager to end in order, as SIGTERM does."""
        manager, self._manager = self._manager, None
        if manager is not None:
            self.process.spawn(self._stop(manager, self.store))

    async def _stop(self, manager: Manager, store: Any) -> None:
        await manager.stop()
        await store.close()
        self.store = self._manager = None
        self.process.on_death = lambda: None
        self.process.end()

    def _died(self) -> None:
        """Do what the kernel does when a process dies: close its files, and with them let go of its locks."""
        self._network.close()
        file = self.store._backend._file
        file.reader.raw.close()
        file.writer.raw.close()
        with suppress(OSError):
            os.close(file._lock._descriptor)
        self.store = self._manager = None


class WorkerHost:
    """Runs workers of one name; an older process may still be there when the next one starts."""

    def __init__(
        self,
        name: str,
        *,
        loop: VirtualLoop,
        network: Network,
        ids: IdSource,
        targets: Sequence[Target],
        slots: int,
        threads: Callable[[], VirtualThreads],
    ) -> None:
        self.name = name
        self.slots = slots
        self._loop = loop
        self._network = network
        self._ids = ids
        self._targets = targets
        self._threads = threads
        self.all: list[Process] = []
        self.workers: dict[Process, Worker] = {}

    @property
    def living(self) -> list[Process]:
        return [process for process in self.all if process.alive]

    def start(self) -> None:
        """Start one more process under this name."""
        process = Process(self.name)
        self.all.append(process)
        process.context.run(self._open, process)

    def supervise(self) -> None:
        """Start a process where none is left that takes leases, as a supervisor of services does."""
        stages = [self.workers[process].lifecycle.stage for process in self.living]
        if Stage.SERVING not in stages:
            self.start()

    def _open(self, process: Process) -> None:
        engine = SimulatedEngine()
        served = [Served(target=target, engine=engine) for target in self._targets]
        identity = Identity(
            worker_name=self.name,
            instance_id=self._ids.new_id(),
            build="0",
            host="simulated",
            pid=len(self.all),
            slots=self.slots,
            labels={},
        )
        catalogue = Catalogue(identity=identity, served=served)
        catalogue._known.update({one.target.name: engine.describe(one.target) for one in served})
        channels = [cast("Any", Channel(self._network, process)) for _ in range(2)]
        worker = Worker(
            manager=GrpcManager(calls=channels[0], heartbeats=channels[1]),
            catalogue=catalogue,
            slots=self.slots,
            timing=Patience(drain_grace=6.0, stop_patience=1.0),
            clock=self._loop.time,
        )
        worker._runner._pool.shutdown()
        worker._runner._pool = cast("Any", self._threads())
        self.workers[process] = worker
        process.spawn(self._run(process, worker))

    async def _run(self, process: Process, worker: Worker) -> None:
        with suppress(RegistrationRefusedError):
            await worker.run(lambda _: None)
        process.end()
