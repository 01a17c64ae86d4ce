"""Three managers on one PostgreSQL and five workers, and the hand that strikes them."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from manager_service.store import migrate_store
from tests.battery.deployment import Deployment, freeze, tell, thaw
from tests.battery.faults import Fault, Kind
from tests.battery.severing import Severing
from tests.postgres import PostgresServer, Stop
from tests.services import Service, address_of

# The last one hears no hints and prepares nothing, as behind a connection pooler.
MANAGERS = ((), (), ("--store-pooled",))
WORKERS = ("anna", "berta", "clara", "dora", "emma")
SLOTS = 4
_CUTS = 3
_ANSWERS = 4


@dataclass
class Replicas:
    """The processes of a run. One that is struck is left alone by other faults until it is well again."""

    deployment: Deployment
    server: PostgresServer
    severing: Severing
    url: str
    beds: Sequence[str]
    managers: list[Service] = field(default_factory=list)
    workers: dict[str, Service] = field(default_factory=dict)
    struck: Counter[Kind] = field(default_factory=Counter)
    _held: dict[str, asyncio.Lock] = field(default_factory=dict)

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(map(address_of, self.managers))

    def start(self, *, workers: Sequence[str] = WORKERS) -> None:
        self.managers += [self.deployment.manager(*arguments) for arguments in MANAGERS]
        for name in workers:
            self.hire(name)

    def hire(self, name: str) -> None:
        beds = map(self.deployment.bed, self.beds)
        self.workers[name] = self.deployment.worker(",".join(self.addresses), *beds, name=name, slots=SLOTS)

    async def suffer(self, faults: Sequence[Fault]) -> None:
        """Let faults come at their times, each whatever the others still do."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        async with asyncio.TaskGroup() as group:
            for fault in faults:
                await asyncio.sleep(begun + fault.at - loop.time())
                group.create_task(self.strike(fault))

    async def strike(self, fault: Fault) -> None:
        """Let one fault come, and be over."""
        match fault.kind:
            case Kind.KILL_WORKER:
                await self._kill_worker(WORKERS[fault.which % len(WORKERS)])
            case Kind.KILL_MANAGER:
                await self._kill_manager(fault.which % len(MANAGERS))
            case Kind.STOP_WORKER:
                await self._stop_worker(WORKERS[fault.which % len(WORKERS)], fault.seconds)
            case Kind.STOP_MANAGER | Kind.HALT_MANAGER:
                await self._stop_manager(fault.which % len(MANAGERS), fault.seconds)
            case Kind.RESTART_FAST | Kind.RESTART_IMMEDIATE:
                await self._restart(
                    Stop.FAST if fault.kind is Kind.RESTART_FAST else Stop.IMMEDIATE, fault.seconds
                )
            case Kind.CUT:
                await self._cut(fault.seconds)
            case Kind.LOSE_ANSWERS:
                self.severing.order(_ANSWERS)
        self.struck[fault.kind] += 1

    def hold(self, name: str) -> asyncio.Lock:
        return self._held.setdefault(name, asyncio.Lock())

    async def _kill_worker(self, name: str) -> None:
        async with self.hold(name):
            await asyncio.to_thread(self.deployment.kill, self.workers[name])
            await asyncio.to_thread(self.hire, name)

    async def _kill_manager(self, number: int) -> None:
        async with self.hold(f"manager {number}"):
            address = self.addresses[number]
            await asyncio.to_thread(self.deployment.kill, self.managers[number])
            while True:
                # It does not start without its store, as which counts an answer that was lost.
                async with self.hold("server"):
                    try:
                        self.managers[number] = await asyncio.to_thread(
                            self.deployment.manager, *MANAGERS[number], listen=address
                        )
                    except AssertionError as error:
                        tell(f"a manager did not start: {error}")
                    else:
                        return

    async def _stop_worker(self, name: str, seconds: float) -> None:
        async with self.hold(name):
            await _stop(self.workers[name], seconds)

    async def _stop_manager(self, number: int, seconds: float) -> None:
        async with self.hold(f"manager {number}"):
            await _stop(self.managers[number], seconds)

    async def _restart(self, how: Stop, seconds: float) -> None:
        async with self.hold("server"):
            await asyncio.to_thread(self.server.stop, how)
            await asyncio.sleep(seconds)
            await asyncio.to_thread(self.server.start)

    async def _cut(self, seconds: float) -> None:
        for _ in range(_CUTS):
            async with self.hold("server"):
                await asyncio.to_thread(self.server.cut, self.url)
            await asyncio.sleep(seconds)


async def _stop(service: Service, seconds: float) -> None:
    await asyncio.to_thread(freeze, service)
    try:
        await asyncio.sleep(seconds)
    finally:
        thaw(service)


@asynccontextmanager
async def replicas(
    deployment: Deployment, beds: Sequence[str], *, workers: Sequence[str]
) -> AsyncIterator[Replicas]:
    """Start everything; whatever is stopped at the end goes on, so that it can be ended."""
    with PostgresServer() as server:
        url = server.create_database()
        await asyncio.to_thread(migrate_store, url)
        async with Severing(server).open() as severing:
            deployment.url = severing.url(url)
            crew = Replicas(deployment, server, severing, url, beds)
            await asyncio.to_thread(crew.start, workers=workers)
            try:
                yield crew
            finally:
                await asyncio.to_thread(deployment.stack.close)
