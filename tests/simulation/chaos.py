"""What happens to a world: bad weather, crashes, pauses, clocks that step, clients that change their mind."""

import asyncio
from typing import TYPE_CHECKING

from manager_service.domain.model import SECOND
from tests.simulation.network import Weather

if TYPE_CHECKING:
    from tests.simulation.processes import WorkerHost
    from tests.simulation.world import World


class Chaos:
    """Draws what goes wrong next.

    Args:
        world: what it happens to.
    """

    def __init__(self, world: "World") -> None:
        self._world = world
        self._chance = world.chance
        self._tasks: list[asyncio.Task[None]] = []
        self._faults = (
            *[self._act] * 5,
            *[self._crash_worker] * 2,
            *[self._pause_worker] * 2,
            self._start_twice,
            self._stop_worker,
            *[self._cut_off] * 2,
            *[self._crash_manager] * 2,
            self._pause_manager,
            self._restart_manager,
            self._step_clock,
            self._change_weather,
        )

    async def rage(self, seconds: float) -> None:
        """Let things happen for a while."""
        loop, chance = self._world.loop, self._chance
        await self._change_weather()
        end = loop.time() + seconds
        pace = chance.choice([0.5, 1.0, 3.0])
        while loop.time() < end:
            await asyncio.sleep(pace * chance.random())
            fault = chance.choice(self._faults)
            self._world.trace("chaos:", fault.__name__.strip("_"))
            self._tasks.append(asyncio.ensure_future(fault()))

    async def calm(self) -> None:
        """Let everything run undisturbed, and take back what would hold it for ever."""
        self._world.trace("chaos: calm")
        await asyncio.gather(*self._tasks)
        self._world.network.weather = Weather()
        self._world.start_manager()
        await self._world.clients.idle()

    async def _act(self) -> None:
        self._world.clients.act()

    async def _change_weather(self) -> None:
        chance = self._chance
        bad = chance.choice([0.0, 0.02, 0.1, 0.3])
        cut = self._world.network.weather.cut
        self._world.network.weather = Weather(
            lost=bad,
            doubled=chance.choice([0.0, 0.1, 0.5]),
            slow=bad,
            slowest=chance.choice([0.3, 5.0, 20.0]),
            cut=cut,
        )

    def _span(self) -> float:
        """Draw how long something lasts: often shorter than a lease, sometimes longer."""
        return self._chance.choice([0.3, 3.0, 8.0, 40.0]) * self._chance.random()

    def _host(self) -> "WorkerHost":
        return self._chance.choice(self._world.workers)

    async def _crash_worker(self) -> None:
        host = self._host()
        for process in host.living:
            process.fuse = self._chance.randint(0, 20)
        await asyncio.sleep(self._span())
        host.start()

    async def _pause_worker(self) -> None:
        for process in self._host().living[-1:]:
            self._world.loop.pause(process)
            await asyncio.sleep(self._span())
            self._world.loop.resume(process)

    async def _start_twice(self) -> None:
        self._host().start()

    async def _stop_worker(self) -> None:
        host = self._host()
        for process in host.living:
            process.context.copy().run(host.workers[process].lifecycle.drain)
        await asyncio.sleep(self._span())
        host.start()

    async def _cut_off(self) -> None:
        name = self._chance.choice([*(worker.name for worker in self._world.workers), "clients"])
        self._world.network.weather.cut.add(name)
        await asyncio.sleep(self._span())
        self._world.network.weather.cut.discard(name)

    async def _crash_manager(self) -> None:
        process = self._world.manager.process
        if not process.alive or process.fuse is not None or process.paused:
            return
        process.fuse = self._chance.randint(0, 30)
        await process.dead.wait()
        self._world.outages.begin()
        await asyncio.sleep(self._span())
        self._world.start_manager()

    async def _restart_manager(self) -> None:
        process = self._world.manager.process
        if not process.alive or process.fuse is not None or process.paused:
            return
        self._world.manager.stop()
        await process.dead.wait()
        self._world.outages.begin()
        await asyncio.sleep(self._span())
        self._world.start_manager()

    async def _pause_manager(self) -> None:
        process = self._world.manager.process
        if not process.alive or process.fuse is not None or process.paused:
            return
        self._world.loop.pause(process)
        self._world.outages.begin()
        await asyncio.sleep(self._span())
        self._world.loop.resume(process)
        self._world.outages.end(paused=True)

    async def _step_clock(self) -> None:
        self._world.clock.stepped += self._chance.choice([-1, 1]) * self._chance.randint(1, 3_600) * SECOND
