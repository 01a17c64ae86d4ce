"""The composition root: everything is made and wired here, nothing is decided."""

import asyncio
import gc
import json
import os
import signal
import socket
import sys
import uuid
from collections.abc import Sequence
from importlib.metadata import version

import structlog

from worker_service.catalogue import Catalogue, Identity, Served
from worker_service.config import FROM_STDIN, WorkerConfig
from worker_service.domain.errors import (
    ManagerUnavailableError,
)
from worker_service.domain.manager import Session
from worker_service.domain.ports import Engines
from worker_service.domain.secrets import Redactor
from worker_service.log_setup import configure_logs
from worker_service.loops import Loop
from worker_service.operations.registry import EngineRegistry
from worker_service.plan import TargetPlan, WantedOperation, plan_target
from worker_service.reloading import Reloader
from worker_service.stdin import Lifeline
from worker_service.targets import TargetOrder, refuse_doubles, resolve_targets
from worker_service.terminal import Terminal
from worker_service.worker import Timing, Worker

PROGRAM = "overhaul-worker"
EXIT_UNREPORTED = 1
EXIT_REFUSED = 2
EXIT_UNREACHABLE = 3

log = structlog.get_logger("worker.app")


def serve(config: WorkerConfig, engines: Engines | None = None) -> int:
    """Run a worker to its end and return its exit code: 0, 1 unreported attempts, 3 no manager.

    Raises:
        ConfigurationError: the configuration cannot be served.
        InvalidTargetError: a target cannot be served.
        RegistrationRefusedError: the manager does not take this worker as it is.
    """
    redact = Redactor(order.url for order in config.targets)
    configure_logs(form=config.log_format, level=config.log_level, redact=redact)
    engines = engines or EngineRegistry.load()
    served = resolve_targets(config.targets, engines)
    if config.distinct_targets:
        refuse_doubles(served)
    try:
        return asyncio.run(_serve(config, served, engines, redact))
    except ManagerUnavailableError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_UNREACHABLE


def plan(
    orders: Sequence[TargetOrder],
    operations: Sequence[WantedOperation],
    engines: Engines | None = None,
    *,
    distinct: bool = False,
) -> list[TargetPlan]:
    """Tell what the operations would run on the targets, without a manager and without a change."""
    served = resolve_targets(orders, engines or EngineRegistry.load())
    if distinct:
        refuse_doubles(served)
    return [plan_target(one, operations) for one in served]


async def _serve(config: WorkerConfig, served: Sequence[Served], engines: Engines, redact: Redactor) -> int:
    ended = asyncio.Event()
    reads_stdin = config.stdin_lifeline or config.manager == FROM_STDIN
    lifeline = Lifeline(ended.set) if reads_stdin else None
    # gRPC is loaded while the parent still starts the manager, but never before a target was refused.
    from worker_service.manager_client import GrpcManager, address_of, connect  # noqa: PLC0415 - see above

    gc.freeze()
    gc.enable()
    manager = config.manager
    if lifeline and manager == FROM_STDIN:
        manager = await lifeline.first_line() or ""
        if not manager:
            return 0
    address = address_of(manager)
    client = GrpcManager(calls=connect(address), heartbeats=connect(address, own_connection=True))
    identity = _identity(config)
    worker = Worker(
        manager=client,
        catalogue=Catalogue(identity=identity, served=served),
        slots=config.slots,
        timing=Timing(drain_grace=config.drain_grace, connect_timeout=config.connect_timeout),
        redact=redact,
    )
    reloader = Reloader(
        sources=config.sources, served=served, engines=engines, redact=redact, serve=worker.retarget
    )
    reloads = Loop("reload", reloader.reload)
    _obey_signals(worker, reloader)
    watching = asyncio.ensure_future(_release_at(ended, worker)) if config.stdin_lifeline else None

    def on_ready(_: Session) -> None:
        _announce(identity, manager, served)
        reloads.start()

    try:
        clean = await worker.run(on_ready)
    finally:
        await reloads.stop()
        if watching:
            watching.cancel()
        await client.close()
    code = 0 if clean else EXIT_UNREPORTED
    log.info("stopped", exit_code=code)
    if worker.stuck:
        _leave_now(code)
    return code


def _identity(config: WorkerConfig) -> Identity:
    return Identity(
        worker_name=config.name,
        instance_id=str(uuid.uuid4()),
        build=version("overhaul"),
        host=socket.gethostname(),
        pid=os.getpid(),
        slots=config.slots,
        labels=config.labels,
    )


def _obey_signals(worker: Worker, reloader: Reloader) -> None:
    """Drain at the first SIGTERM or SIGINT, release at the second; reload at SIGHUP, unless a terminal hung up."""
    received: list[str] = []
    terminal = Terminal()

    def end(name: str) -> None:
        log.info("signal received", signal=name)
        worker.lifecycle.release() if received else worker.lifecycle.drain()
        received.append(name)

    def reload(name: str) -> None:
        log.info("signal received", signal=name)
        worker.lifecycle.drain() if terminal.hung_up() else reloader.ask()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, number.name)
    loop.add_signal_handler(signal.SIGHUP, reload, signal.SIGHUP.name)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})


async def _release_at(ended: asyncio.Event, worker: Worker) -> None:
    await ended.wait()
    log.info("stdin ended")
    worker.lifecycle.release()


def _announce(identity: Identity, manager: str, served: Sequence[Served]) -> None:
    """Print the one line that tells whoever started this process that it serves."""
    ready = {
        "event": "ready",
        "program": PROGRAM,
        "version": identity.build,
        "worker_name": identity.worker_name,
        "instance_id": identity.instance_id,
        "pid": identity.pid,
        "manager": manager,
        "targets": [one.target.name for one in served],
    }
    sys.stdout.write(json.dumps(ready) + "\n")
    sys.stdout.flush()


def _leave_now(code: int) -> None:
    """End the process although a thread still runs: Python would wait for it, the drain must not."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
