"""The life of a manager as a process: it says when it is ready, and ends when it is told to."""

import asyncio
import gc
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import structlog

from manager_service.api.server import AddressInUseError
from manager_service.app.address import check_address
from manager_service.app.manager import Manager
from manager_service.app.opening import wait_for_store
from manager_service.app.system import SystemClock, SystemIds
from manager_service.config import (
    TEMPORARY_STORE,
    InvalidSettingsError,
    Settings,
    StoreSync,
    is_loopback,
    set_up_logging,
    verify,
)
from manager_service.domain.errors import InvalidStoreError, ManagerError, StoreInUseError
from manager_service.domain.ports import JobStore
from manager_service.store import migrate_store, open_store

log = structlog.get_logger("manager.process")

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PASSWORD = re.compile(r"(?<=://)([^:/@]*):[^@]*@")
_STARTERS_FOLDER = "overhaul-run-"
"""How the folder is called in which `overhaul run` lets its manager make a folder."""


REFUSED = 2
FAILED = 1


def run(settings: Settings) -> int:
    """Serve until the process is told to end, and return its exit code.

    A refusal (wrong settings, a store in use, a port taken) is 2, any other failure 1.
    """
    try:
        verify(settings)
        set_up_logging(settings.log_level, settings.log_format)
        asyncio.run(_serve(settings))
    except (InvalidSettingsError, InvalidStoreError, StoreInUseError, AddressInUseError) as error:
        return _ended(REFUSED, error)
    except (ManagerError, OSError) as error:
        return _ended(FAILED, error)
    return 0


def run_migration(store: str) -> int:
    """Bring a store to this release's schema and return the exit code of the process; as ``run`` does."""
    try:
        before = migrate_store(store)
    except InvalidStoreError as error:
        return _ended(REFUSED, error)
    except (ManagerError, OSError) as error:
        return _ended(FAILED, error)
    sys.stdout.write(f"the job store is ready; its schema was {before or 'none'} before\n")
    return 0


def _ended(code: int, error: Exception) -> int:
    sys.stderr.write(f"overhaul-manager: {error}\n")
    return code


async def _serve(settings: Settings) -> None:
    """Serve until the process is told to end.

    Raises:
        ManagerError: the store cannot be opened.
        AddressInUseError: the address cannot be bound.
    """
    stop = _StopRequest()
    with stop.on_signals(), _temporary_store(settings) as (settings_now, folder):
        if settings.stdin_lifeline:
            stop.on_end_of_stdin()
        check_address(settings_now.listen)
        store = await _opened(settings_now, stop)
        if store is not None:
            async with _running(settings_now, store, stop) as port:
                gc.freeze()
                gc.enable()
                _announce(settings_now, port, folder)
                await stop.wait()
                log.info("shutting down", why=stop.why)
    log.info("stopped")


class _StopRequest:
    """Whether the process is to end, and how urgently."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self._manager: Manager | None = None
        self.why = ""

    def concerns(self, manager: Manager) -> None:
        """Let a second request hurry the manager."""
        self._manager = manager

    def ask(self, why: str) -> None:
        """Ask for the end; asked again, for a faster one."""
        if self._asked.is_set() and self._manager:
            self._manager.hurry()
        self.why = self.why or why
        self._asked.set()

    async def wait(self) -> None:
        """Wait until the end is asked for."""
        await self._asked.wait()

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Ask for the end on the signals that say so."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.ask, number.name)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    def on_end_of_stdin(self) -> None:
        """Ask for the end when nobody can write to stdin any more, so when the starter has died."""
        loop = asyncio.get_running_loop()

        def read() -> None:
            # A stdin that was never open counts as ended; a loop that is closed needs no word any more.
            with suppress(OSError):
                while os.read(0, 4_096):
                    pass
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self.ask, "end of stdin")

        # A thread, because stdin may be a file, which no event loop can wait for.
        threading.Thread(target=read, name="lifeline", daemon=True).start()


@contextmanager
def _temporary_store(settings: Settings) -> Iterator[tuple[Settings, Path | None]]:
    """Put a temporary store into a folder of its own, and remove it at the end."""
    if settings.store != TEMPORARY_STORE:
        yield settings, None
        return
    folder = Path(tempfile.mkdtemp(prefix="overhaul-manager-"))
    try:
        yield replace(settings, store=f"sqlite:///{folder}/jobs.db", synchronous=StoreSync.NORMAL), folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.parent.name.startswith(_STARTERS_FOLDER):
            # Its maker may have been killed; one that lives removes it too, also with something in it.
            with suppress(OSError):
                folder.parent.rmdir()


async def _opened(settings: Settings, stop: _StopRequest) -> JobStore | None:
    """Open the store; ``None`` when the end is asked for before it could be reached."""
    open_it = partial(
        open_store,
        settings.store,
        clock=SystemClock(),
        ids=SystemIds(),
        timing=settings.timing,
        synchronous=settings.synchronous.value,
        pooled=settings.store_pooled,
    )
    if settings.store.startswith("sqlite:"):
        return open_it()
    return await wait_for_store(open_it, patience=settings.store_wait, stopped=stop.wait)


@asynccontextmanager
async def _running(settings: Settings, store: JobStore, stop: _StopRequest) -> AsyncIterator[int]:
    try:
        manager = Manager(settings, store, clock=SystemClock(), ids=SystemIds())
        stop.concerns(manager)
        try:
            yield await manager.start()
        finally:
            await manager.stop()
    finally:
        await store.close()


def _announce(settings: Settings, port: int, folder: Path | None) -> None:
    """Say on stdout, in one line for programs, that the manager is ready."""
    host, _, _ = settings.listen.rpartition(":")
    address = settings.listen if settings.listen.startswith("unix:") else f"{host}:{port}"
    ready = {
        "event": "ready",
        "program": "overhaul-manager",
        "version": version("overhaul"),
        "address": address,
        "pid": os.getpid(),
        "store": _PASSWORD.sub(r"\1:***@", settings.store),
        "temporary_directory": str(folder) if folder else None,
    }
    sys.stdout.write(json.dumps(ready) + "\n")
    sys.stdout.flush()
    log.info("ready", address=address, store=ready["store"])
    if not is_loopback(settings.listen):
        log.warning("listening in plaintext beyond loopback", address=address)
