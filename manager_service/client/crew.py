"""The manager and the worker of one `overhaul run`."""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from manager_service.client.processes import Program, starting

ResultT = TypeVar("ResultT")

MANAGER, WORKER = "overhaul-manager", "overhaul-worker"
GRACE, KILL_AFTER = 10.0, 5.0
QUICK_GRACE, QUICK_KILL_AFTER = 1.5, 1.5

_SLOTS = 2
"""The worker's own default."""

TEMPORARY = "temporary"
FOLDER_PREFIX = "overhaul-run-"
"""The manager knows it too: it removes an empty folder of this name around its own."""
SETTINGS_PREFIX = "OVERHAUL_"


def private_environment() -> dict[str, str]:
    """Return the environment without the settings of the managers and workers that are deployed here."""
    return {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS_PREFIX)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Commands:
    """How the two programs are called; `-P` keeps modules of the working directory out of them."""

    manager: tuple[str, ...] = (sys.executable, "-P", "-m", "manager_service")
    worker: tuple[str, ...] = (sys.executable, "-P", "-m", "worker_service")

    def serve(self, store: str) -> list[str]:
        """Return the command line of the manager."""
        return [
            *self.manager,
            *("serve", "--listen", "127.0.0.1:0", "--store", store, "--stdin-lifeline", "--log-level", "warning"),
        ]

    def work(self, targets: Sequence[str], slots: int | None) -> list[str]:
        """Return the command line of the worker."""
        return [
            *self.worker,
            *("--manager", "-", "--stdin-lifeline", "--distinct-targets", "--log-level", "warning"),
            *(() if slots is None else ("--slots", str(slots))),
            # Nobody else shares the targets: the locks alone say what may run side by side.
            *("--max-parallel", str(slots or _SLOTS)),
            *(part for target in targets for part in ("--target", target)),
        ]

    def plan(self, targets: Sequence[str], operations: Sequence[str]) -> list[str]:
        """Return the command line that tells the statements and changes nothing."""
        return [
            *self.worker,
            "plan",
            "--distinct-targets",
            *(part for target in targets for part in ("--target", target)),
            *(part for operation in operations for part in ("--operation", operation)),
            *("--output", "json"),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """Both programs are up: the manager's address, and the targets' names in the order they were given."""

    address: str
    targets: Sequence[str]


class Crew:
    """Starts both programs at once and stops both, whatever happened in between."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._programs: dict[str, Program] = {}
        self._folder: str | None = None

    async def start(self, *, targets: Sequence[str], store: str, slots: int | None) -> Ready:
        """Start both; the worker looks at its targets while the manager opens its store.

        Raises:
            ProgramEndedError: one of them refused or died.
            ProgramNotStartedError: the operating system did not let one start.
        """
        environment = private_environment()
        managers = environment
        if store == TEMPORARY:
            # Made here, so that it is known however early the manager is killed.
            with starting(MANAGER):
                self._folder = tempfile.mkdtemp(prefix=FOLDER_PREFIX)
            managers = environment | {"TMPDIR": self._folder}
        manager = self._programs[MANAGER] = await Program.start(MANAGER, self._commands.serve(store), managers)
        worker = self._programs[WORKER] = await Program.start(
            WORKER, self._commands.work(targets, slots), environment
        )
        address, announced = await both(self._introduce(manager, worker), worker.ready())
        return Ready(address=address, targets=announced["targets"])

    async def ended(self) -> NoReturn:
        """Wait for the end of either, which nobody asked for: it never returns.

        Raises:
            ProgramEndedError: one of them ended.
        """
        await both(*(program.ended() for program in self._programs.values()))
        raise AssertionError("a program's end is always raised")

    async def stop(self, hurry: asyncio.Event) -> None:
        """Stop both, the worker first so that it can take its leave; soon with `hurry`, or when one is gone.

        Also in a hurry the worker goes first: without a manager to tell it would try in vain until it is killed.
        """
        try:
            if all(program.exit_code is None for program in self._programs.values()):
                slowly = asyncio.ensure_future(self._stop_in_order(grace=GRACE, kill_after=KILL_AFTER))
                hurried = asyncio.ensure_future(hurry.wait())
                await asyncio.wait({slowly, hurried}, return_when=asyncio.FIRST_COMPLETED)
                await _cancelled(hurried, slowly)
            await self._stop_in_order(grace=QUICK_GRACE, kill_after=QUICK_KILL_AFTER)
        finally:
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)

    async def _introduce(self, manager: Program, worker: Program) -> str:
        address: str = (await manager.ready())["address"]
        worker.write_line(address)
        return address

    async def _stop_in_order(self, *, grace: float, kill_after: float) -> None:
        for name in (WORKER, MANAGER):
            if name in self._programs:
                await self._programs[name].stop(grace=grace, kill_after=kill_after)


async def both(*works: Awaitable[Any]) -> list[Any]:
    """Return all results, or raise the first failure; either way nothing goes on."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        failed = [task for task in tasks if task.done() and task.exception()]
        return [task.result() for task in failed or tasks]
    finally:
        await _cancelled(*tasks)


async def first_of(work: Awaitable[ResultT], *troubles: Awaitable[NoReturn]) -> ResultT:
    """Return what the work answers, unless one of the troubles is raised before it; either way nothing goes on."""
    tasks = [asyncio.ensure_future(one) for one in (work, *troubles)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task.done()).result()
    finally:
        await _cancelled(*tasks)


async def _cancelled(*tasks: "asyncio.Future[Any]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
