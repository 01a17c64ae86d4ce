"""A world: one manager's store, its workers and clients, everything that can happen to them, all from one seed."""

import asyncio
import atexit
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from manager_service.domain.ports import ChildJobFilter
from manager_service.store.schema import prepare
from manager_service.store.sqlite import SqliteFile
from overhaul.v1 import lease_service_pb2
from tests.simulation.chaos import Chaos
from tests.simulation.clients import Clients
from tests.simulation.facts import Facts, Observer
from tests.simulation.invariants import Memory, ViolationError, check_state, demand
from tests.simulation.machine import LOGGER, SeededIds, VirtualClock
from tests.simulation.network import Call, Network
from tests.simulation.operations import SimulatedEngine, VirtualThreads
from tests.simulation.outages import Outages
from tests.simulation.processes import TIMING, ManagerHost, WorkerHost
from tests.simulation.virtual_loop import Process, StuckError, VirtualLoop
from worker_service.domain.target import Target

_LONGEST_CALM = 200.0
_RECORDED = (lease_service_pb2.REPORT_STATUS_RECORDED, lease_service_pb2.REPORT_STATUS_ALREADY_RECORDED)
_SHM = Path("/dev/shm")


class StoppedError(Exception):
    """The asked number of steps was taken."""


class World:
    """Everything of one seed.

    Args:
        seed: all chance comes from it.
        most_steps: stop after so many steps; ``None`` goes to the end.
        trace: told what happens, line by line.
    """

    def __init__(
        self, seed: int, *, most_steps: int | None = None, trace: Callable[[str], None] | None = None
    ) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        random.seed(seed)
        self._most_steps = most_steps
        self._sink = trace
        self._folder = Path(tempfile.mkdtemp(prefix="simulation-", dir=_SHM if _SHM.is_dir() else None))
        shutil.copy(empty_store(), self._folder / "store.db")
        LOGGER.sink = self._heard
        self.loop = VirtualLoop(self._after_step)
        self.loop.set_exception_handler(self._unhandled)
        self.clock = VirtualClock(self.loop)
        ids = SeededIds(self.chance)
        self.network = Network(
            self.loop,
            self.chance,
            on_served=self._served,
            on_answer=self._answered,
            on_defect=self._defect,
            trace=self.trace,
        )
        self.targets = _targets(self.chance)
        self.manager = ManagerHost(self.loop, self.network, self.clock, ids, self._folder / "store.db")
        self.outages = Outages(self.clock, TIMING)
        self.workers = [self._worker(f"worker-{number}", ids) for number in range(self.chance.randint(1, 3))]
        self.clients = Clients(self.network, self.chance, [target.name for target in self.targets])
        self.observer: Observer | None = None
        self.memory = Memory(
            now=self.clock.monotonic,
            outages=self.outages.since,
            store_time=self._store_time,
            lease_duration=TIMING.lease_duration,
        )
        self._found: ViolationError | None = None
        self.calm = False
        self._seen: Counter[str] = Counter()
        described = {target.name: SimulatedEngine().describe(target) for target in self.targets}
        self._locks = {
            name: tuple((lock.key, lock.exclusive) for lock in told.operations[0].locks)
            for name, told in described.items()
        }
        self._max_parallel = {target.name: target.max_parallel for target in self.targets}
        self.facts: Facts | None = None

    def _worker(self, name: str, ids: SeededIds) -> WorkerHost:
        # The first serves every target, or some child might wait for ever.
        number = len(self.targets) if name == "worker-0" else self.chance.randint(1, len(self.targets))
        served = self.chance.sample(self.targets, number)
        longest = self.chance.choice([1.0, 5.0, 25.0])
        return WorkerHost(
            name,
            loop=self.loop,
            network=self.network,
            ids=ids,
            targets=served,
            slots=self.chance.randint(1, 3),
            threads=lambda: VirtualThreads(self.chance, self.trace, longest=lambda: 0.5 if self.calm else longest),
        )

    def run(self) -> None:
        """Live through chaos and calm.

        Raises:
            ViolationError: an invariant does not hold, or not everything came to its end.
            StoppedError: the asked number of steps was taken.
        """
        try:
            self.loop.run_until_complete(self._live())
        except StuckError as stuck:
            raise ViolationError(str(stuck)) from stuck
        finally:
            self._clean_up()

    def tally(self) -> Counter[str]:
        """Count what was seen, to show that the interesting things happen."""
        return self._seen + Counter(
            attempts=self.memory.ended,
            losses=self.memory.lost,
            managers=len(self.manager.all),
            workers=sum(len(worker.all) for worker in self.workers),
            steps=self.loop.steps,
        )

    async def _live(self) -> None:
        self.start_manager()
        self.observer = Observer(self._folder / "store.db")
        for worker in self.workers:
            worker.start()
        await asyncio.gather(*(self.clients.create() for _ in range(self.chance.randint(1, 2))))
        chaos = Chaos(self)
        await chaos.rage(self.chance.choice([5.0, 10.0, 25.0]))
        self.calm = True
        await chaos.calm()
        await self._end()

    async def _end(self) -> None:
        """Show that everything comes to its end once nothing disturbs it."""
        end = self.loop.time() + _LONGEST_CALM
        while self.loop.time() < end:
            # A pause that was under way for long may come after the resume.
            await self.clients.let_go()
            await asyncio.sleep(5.0)
            for worker in self.workers:
                worker.supervise()
            if self.facts and all(parent.end_time is not None for parent in self.facts.parents.values()):
                return
        store = self.manager.store
        waiting = [
            (child.id[-3:], child.state.value, child.wait_reason, child.wait_detail, child.available_time)
            for parent in self.clients.parents
            for child in await store.child_jobs(parent, ChildJobFilter(), limit=100)
            if not child.state.final
        ]
        demand(not waiting, "everything becomes terminal", *waiting)

    def start_manager(self) -> None:
        """Start a manager unless there is one; only that ends an outage."""
        if self.manager.store is None:
            self.manager.start()
            self.outages.end()

    def trace(self, *words: object) -> None:
        """Tell what happens, if anybody listens."""
        if self._sink is not None:
            self._sink(f"{self.loop.steps:6} {self.loop.time() - 5_000:9.4f}  {' '.join(map(str, words))}")

    def _after_step(self, owner: Process | None) -> None:
        if self.loop.reaping:
            return
        if self._found is not None:
            raise self._found
        if owner is not None and owner is self.manager.process and self.observer and self.observer.changed():
            self.facts = self.observer.look()
            check_state(self.facts, self._locks, self._max_parallel)
            self.memory.check(self.facts)
        if self._most_steps is not None and self.loop.steps >= self._most_steps:
            raise StoppedError

    def _store_time(self) -> int | None:
        store = self.manager.store
        return None if store is None else store._backend._clock.now()

    def _served(self, response: Any) -> None:
        if isinstance(response, lease_service_pb2.ReportResultsResponse):
            self._seen.update(lease_service_pb2.ReportStatus.Name(verdict.status) for verdict in response.verdicts)

    def _answered(self, call: Call, response: Any) -> None:
        if self._sink is not None:
            self.trace(call.sender.name, "was answered", call.method.split("/")[1], _short(response))
        if isinstance(response, lease_service_pb2.ReportResultsResponse):
            status = {verdict.report_id: verdict.status for verdict in response.verdicts}
            for told in call.request.results:
                if status[told.report_id] in _RECORDED:
                    self._check(self.memory.told, told.child_job_id, told.attempt, told.lease_id, told.report_id)

    def _check(self, check: Callable[..., None], *args: Any) -> None:
        """Check within a process, whose own error handling must not swallow a violation."""
        try:
            check(*args)
        except ViolationError as violation:
            self._found = self._found or violation

    def _defect(self, what: str, error: BaseException) -> None:
        violation = ViolationError(f"{what} with a defect: {error!r}")
        violation.__cause__ = error
        self._found = self._found or violation

    def _heard(self, level: str, event: str, fields: dict[str, Any]) -> None:
        if self._sink is not None and level != "debug":
            self.trace(level, event, {name: str(value)[-40:] for name, value in fields.items()})
        if level == "exception" and not self.loop.reaping:
            self._found = self._found or ViolationError(f"logged as a defect: {event} {fields}")

    def _unhandled(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not self.loop.reaping:
            self._found = self._found or ViolationError(f"unhandled in the event loop: {context}")

    def _clean_up(self) -> None:
        hosts = [self.clients.process, *self.manager.all, *(p for worker in self.workers for p in worker.all)]
        for process in hosts:
            self.loop.kill(process)
        self.loop.reap(hosts)
        everything = asyncio.all_tasks(self.loop)
        for task in everything:
            task.cancel()
        if everything:
            self.loop.run_until_complete(asyncio.wait(everything, timeout=60))
        self.loop.close()
        LOGGER.sink = None
        if self.observer is not None:
            self.observer.close()
        shutil.rmtree(self._folder)


@cache
def empty_store() -> Path:
    """Make a store's file once per process, for its tables take longer to make than a world to begin."""
    folder = Path(tempfile.mkdtemp(prefix="simulation-", dir=_SHM if _SHM.is_dir() else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    file = SqliteFile(folder / "store.db", synchronous="normal")
    prepare(file.engine, file.tables, "an empty store")
    file.close()
    return folder / "store.db"


def _short(response: Any) -> str:
    return " ".join(str(response).split())[:160]


def _targets(chance: random.Random) -> list[Target]:
    """Draw a few targets: two may be names of one database, one may take several operations at once."""
    urls = ["a|k-a", "b|k-b", "b2|k-b", "c|~k-c", "d|~k-b|k-d"]
    return [
        Target(
            name=url.partition("|")[0],
            url=url,
            engine="simulated",
            max_parallel=2 if "~" in url and chance.random() < 0.7 else 1,
        )
        for url in chance.sample(urls, chance.randint(1, 4))
    ]
