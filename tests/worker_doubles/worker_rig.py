"""A worker of this process against a scripted LeaseService, over real gRPC."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from io import StringIO

from tests.worker_doubles.fake_engine import FakeEngine
from tests.worker_doubles.lease_server import LeaseServer, serving
from worker_service.catalogue import Catalogue, Identity, Served
from worker_service.domain.secrets import Redactor
from worker_service.domain.target import Target
from worker_service.domain.throttle import Throttle
from worker_service.log_setup import configure_logs
from worker_service.manager_client import GrpcManager, address_of, connect
from worker_service.worker import Timing, Worker

INSTANCE = "5f0c1f0e-0000-4000-8000-000000000001"
URL = "fake://user:s3cret@db/app"


@dataclass
class Rig:
    """The two sides and what lies between."""

    server: LeaseServer
    worker: Worker
    engine: FakeEngine
    run: "asyncio.Task[bool]"
    address: str
    logs: StringIO

    async def ends(self) -> bool:
        """Wait for the worker's end."""
        async with asyncio.timeout(8):
            return await self.run


@asynccontextmanager
async def rig(
    server: LeaseServer,
    *,
    slots: int = 2,
    timing: Timing | None = None,
    ready: bool = True,
    managers: str | None = None,
    engine: FakeEngine | None = None,
    throttle: Throttle | None = None,
) -> AsyncIterator[Rig]:
    """Run a worker of a server, or of ``managers`` that stand for it; the end releases it unless the test has."""
    logs = StringIO()
    redact = Redactor([URL])
    configure_logs(form="json", level="debug", redact=redact, stream=logs)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    server.slots = slots
    engine = engine or FakeEngine()
    async with nullcontext(address_of(managers)) if managers else serving(server) as address:
        manager = GrpcManager(calls=connect(address), heartbeats=connect(address, own_connection=True))
        worker = make_worker(manager, engine, slots, timing, redact, throttle=throttle)
        registered = asyncio.Event()
        run = asyncio.ensure_future(worker.run(lambda _: registered.set()))
        try:
            if ready:
                async with asyncio.timeout(5):
                    await registered.wait()
            yield Rig(server=server, worker=worker, engine=engine, run=run, address=address, logs=logs)
        finally:
            engine.go_on.set()
            worker.lifecycle.release()
            await asyncio.wait({run}, timeout=8)
            await manager.close()


def make_worker(
    manager: GrpcManager,
    engine: FakeEngine,
    slots: int,
    timing: Timing | None,
    redact: Redactor,
    *,
    throttle: Throttle | None = None,
) -> Worker:
    identity = Identity(
        worker_name="w1", instance_id=INSTANCE, build="0", host="h", pid=1, slots=slots, labels={"zone": "a"}
    )
    target = Target(name="app", url=URL, engine="fake", labels={"team": "shop"}, throttle=throttle)
    return Worker(
        manager=manager,
        catalogue=Catalogue(identity=identity, served=[Served(target=target, engine=engine)]),
        slots=slots,
        timing=timing or Timing(drain_grace=5, stop_patience=0.5, report_patience=0.5),
        redact=redact,
    )
