"""The commands on workers and targets, and pause and resume, which also hold targets."""

# ruff: noqa: PLC0415 - gRPC and rich are imported inside the commands, so that `--help` does not wait for them

from typing import TYPE_CHECKING, Annotated

import typer

from manager_service.client import parse
from manager_service.client.options import DEFAULT_MANAGER, ManagerOption, Output, OutputOption

if TYPE_CHECKING:
    from manager_service.client.client import ManagerClient

OptionalJob = Annotated[str | None, typer.Argument(metavar="[ID]", help="The parent job's id.", show_envvar=False)]
TargetInstead = Annotated[str | None, typer.Option("--target", help="A target's name, instead of a parent job.")]


def workers(
    *,
    include_gone: Annotated[bool, typer.Option("--all", help="Also those that are lost or have ended.")] = False,
    manager: ManagerOption = DEFAULT_MANAGER,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the workers."""
    from manager_service.client import showing
    from manager_service.client.session import carry_out

    async def work(client: "ManagerClient") -> None:
        found = [worker async for worker in client.list_workers(include_gone=include_gone)]
        showing.show_workers(found, as_object=output is Output.JSON)

    carry_out(manager, work)


def targets(
    label: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Only with this label; repeat to narrow.")
    ] = None,
    manager: ManagerOption = DEFAULT_MANAGER,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the targets that a worker ever served."""
    from manager_service.client import showing
    from manager_service.client.session import carry_out

    labels = parse.pairs(label)

    async def work(client: "ManagerClient") -> None:
        found = [target async for target in client.list_targets(labels=labels)]
        showing.show_targets(found, as_object=output is Output.JSON)

    carry_out(manager, work)


def drain(
    worker: Annotated[str, typer.Argument(metavar="WORKER", help="The worker's name.", show_envvar=False)],
    *,
    terminate: Annotated[bool, typer.Option("--terminate", help="Also end it once it is idle.")] = False,
    manager: ManagerOption = DEFAULT_MANAGER,
    output: OutputOption = Output.TABLE,
) -> None:
    """Tell a worker to finish what it runs and take no more."""
    from manager_service.client import showing
    from manager_service.client.session import carry_out

    async def work(client: "ManagerClient") -> None:
        drained = await client.drain_worker(worker, terminate=terminate)
        showing.show_worker(drained, as_object=output is Output.JSON)

    carry_out(manager, work)


def pause(
    job_id: OptionalJob = None,
    target: TargetInstead = None,
    manager: ManagerOption = DEFAULT_MANAGER,
    output: OutputOption = Output.TABLE,
) -> None:
    """Hold a parent job or a target: what runs finishes, nothing else starts."""
    _hold(job_id, target, manager, output, paused=True)


def resume(
    job_id: OptionalJob = None,
    target: TargetInstead = None,
    manager: ManagerOption = DEFAULT_MANAGER,
    output: OutputOption = Output.TABLE,
) -> None:
    """Let a paused parent job or target go on."""
    _hold(job_id, target, manager, output, paused=False)


def forget(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="The target's name.", show_envvar=False)],
    manager: ManagerOption = DEFAULT_MANAGER,
    output: OutputOption = Output.TABLE,
) -> None:
    """Forget a target that no worker serves any more, so that its name may mean another database."""
    from manager_service.client import showing
    from manager_service.client.session import carry_out

    async def work(client: "ManagerClient") -> None:
        await client.forget_target(target)
        showing.show_gone("forgotten", target, as_object=output is Output.JSON)

    carry_out(manager, work)


def _hold(job_id: str | None, target: str | None, manager: str, output: Output, *, paused: bool) -> None:
    from manager_service.client import showing
    from manager_service.client.session import carry_out

    if (job_id is None) == (target is None):
        raise typer.BadParameter("name either a parent job's ID or a --target")

    async def work(client: "ManagerClient") -> None:
        as_object = output is Output.JSON
        if job_id is not None:
            hold = client.pause_parent_job if paused else client.resume_parent_job
            showing.show_parent(await hold(job_id), as_object=as_object)
        elif target is not None:
            held = client.pause_target if paused else client.resume_target
            showing.show_target(await held(target), as_object=as_object)

    carry_out(manager, work)
