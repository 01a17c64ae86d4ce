"""`overhaul run`: one job over some databases, with a manager and a worker of its own."""

import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn

from manager_service.client.client import ManagerClient
from manager_service.client.crew import TEMPORARY, WORKER, Commands, Crew, Ready, first_of, private_environment
from manager_service.client.errors import ClientError
from manager_service.client.follow import follow
from manager_service.client.interrupts import Interrupts
from manager_service.client.options import Scope
from manager_service.client.processes import ProgramEndedError, starting
from manager_service.client.request import JobRequest, Operation
from manager_service.client.thresholds import Threshold
from manager_service.client.views import View
from overhaul.v1 import job_pb2

# The databases of servers are reached by a URL; what is none, or one of a file, is a file.
_SERVER = re.compile(r"(?:[A-Za-z][A-Za-z0-9_-]*=)?(?!file:|sqlite:)[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What `overhaul run` was asked; `targets` are as they were written."""

    targets: Sequence[str]
    operations: Sequence[Operation] = ()
    store: str = TEMPORARY
    slots: int | None = None
    timeout: timedelta | None = None
    scope: Scope | None = None
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    only_if: Sequence[Threshold] = ()
    dry_run: bool = False

    @property
    def inspects(self) -> bool:
        """Whether the targets are inspected first."""
        return self.used_scope is not Scope.DATABASE or bool(self.only_if or self.include or self.exclude)

    @property
    def used_scope(self) -> Scope:
        """The scope that was given; without one that of the engines, where that is not the same for all."""
        servers = any(_SERVER.match(target) for target in self.targets)
        return self.scope or (Scope.CUSTOMARY if servers else Scope.DATABASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """How the job ended, and whether somebody interrupted it."""

    parent_job: job_pb2.ParentJob
    child_jobs: Sequence[job_pb2.ChildJob]
    interrupted: bool


class StoppedError(Exception):
    """Interrupted before there was an end to tell."""


async def run(request: RunRequest, commands: Commands, view: View) -> RunEnd:
    """Start a manager and a worker, run one job over all targets, stop both and leave nothing behind.

    Raises:
        ProgramEndedError: one of the two refused or died.
        ProgramNotStartedError: the operating system did not let one start.
        ClientError: the manager refused the job.
        StoppedError: interrupted while starting, or a second time.
    """
    with Interrupts() as interrupts:
        if request.store != TEMPORARY:
            # A store that is kept must not be made for targets that are refused.
            await first_of(plan(request, commands), _raised_at(interrupts.first))
        crew = Crew(commands)
        try:
            ready = await first_of(
                crew.start(targets=request.targets, store=request.store, slots=request.slots),
                _raised_at(interrupts.first),
            )
            return await first_of(
                _maintain(ready, request, interrupts.first, view), crew.ended(), _raised_at(interrupts.second)
            )
        finally:
            await crew.stop(interrupts.second)


async def plan(request: RunRequest, commands: Commands) -> dict[str, Any]:
    """Return the statements that would run, as the worker tells them; nothing is changed.

    Raises:
        ProgramEndedError: the worker refused a target or an operation, or died.
        ProgramNotStartedError: the operating system did not let it start.
    """
    with starting(WORKER):
        process = await asyncio.create_subprocess_exec(
            *commands.plan(request.targets, [_as_text(operation) for operation in request.operations]),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=private_environment(),
        )
    try:
        stdout, stderr = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        words = [line.strip() for line in stderr.decode(errors="replace").splitlines() if line.strip()]
        raise ProgramEndedError(WORKER, process.returncode, words, was_ready=False)
    planned: dict[str, Any] = json.loads(stdout)
    return planned


def _as_text(operation: Operation) -> str:
    options = ",".join(f"{name}={value}" for name, value in operation.options.items())
    return f"{operation.name}:{options}" if options else operation.name


async def _maintain(ready: Ready, request: RunRequest, interrupted: asyncio.Event, view: View) -> RunEnd:
    async with ManagerClient(ready.address) as client:
        asked = JobRequest(
            targets=ready.targets,
            operations=request.operations,
            timeout=request.timeout,
            scope=request.used_scope,
            include=request.include,
            exclude=request.exclude,
            only_if=request.only_if,
        )
        if request.dry_run:
            created = (await client.plan_parent_job(asked)).parent_job
        else:
            created = await client.create_parent_job(asked)
        cancelling = asyncio.create_task(_cancel_at(interrupted, client, created.id, view))
        try:
            with view:
                parent_job = await follow(client, created.id, view)
        finally:
            cancelling.cancel()
            await asyncio.gather(cancelling, return_exceptions=True)
        children = [child async for child in client.list_child_jobs(created.id)]
    return RunEnd(parent_job=parent_job, child_jobs=children, interrupted=interrupted.is_set())


async def _cancel_at(interrupted: asyncio.Event, client: ManagerClient, parent_job_id: str, view: View) -> None:
    await interrupted.wait()
    view.say("cancelling; press Ctrl-C again to stop at once")
    try:
        await client.cancel_parent_job(parent_job_id, reason="interrupted by the user of overhaul run")
    except ClientError as error:
        # It ended a moment before, or the manager is going too; either is told by those who wait for it.
        view.say(f"the job could not be cancelled: {error}")


async def _raised_at(event: asyncio.Event) -> NoReturn:
    await event.wait()
    raise StoppedError
