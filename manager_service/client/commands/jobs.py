"""The commands on parent jobs that exist already: get, list, watch, cancel, pause, resume, retry, delete, logs."""

# ruff: noqa: PLC0415 - gRPC and rich are imported inside the commands, so that `--help` does not wait for them

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from manager_service.client import parse
from manager_service.client.options import (
    DEFAULT_MANAGER,
    ManagerOption,
    Output,
    OutputOption,
    ParentJobArgument,
    ParentState,
)

if TYPE_CHECKING:
    from manager_service.client.client import ManagerClient
    from manager_service.client.exits import ExitCode
    from overhaul.v1 import job_pb2

GOES_ON = "stopped watching; the job goes on"


def get(
    job_id: Annotated[
        str, typer.Argument(metavar="ID", help="A parent job's or a child job's id.", show_envvar=False)
    ],
    manager: ManagerOption = DEFAULT_MANAGER,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show a parent job with its children, or a child job with its attempts."""
    from manager_service.client.session import carry_out
    from manager_service.client.showing import show_job

    carry_out(manager, lambda client: show_job(client, job_id, as_object=output is Output.JSON))


def list_jobs(
    *,
    state: Annotated[list[ParentState] | None, typer.Option(help="Only this state; repeat for more.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Only with this label; repeat to narrow.")
    ] = None,
    target: Annotated[str, typer.Option(help="Only with a child on this target.", show_default=False)] = "",
    limit: Annotated[int, typer.Option(min=1, help="The most to show.")] = 50,
    manager: ManagerOption = DEFAULT_MANAGER,
    output: OutputOption = Output.TABLE,
) -> None:
    """List parent jobs, the newest first."""
    from manager_service.client.session import carry_out
    from manager_service.client.showing import show_list

    labels = parse.pairs(label)
    carry_out(
        manager,
        lambda client: show_list(
            client, state or [], labels, target, limit=limit, as_object=output is Output.JSON
        ),
    )


def watch(
    job_id: ParentJobArgument,
    manager: ManagerOption = DEFAULT_MANAGER,
    output: OutputOption = Output.TABLE,
) -> None:
    """Follow a parent job to its end; exits 0 if it completed, 1 otherwise. Ctrl-C stops only the watching."""
    from manager_service.client.session import carry_out
    from manager_service.client.showing import print_updates

    if output is Output.JSON:
        carry_out(manager, lambda client: print_updates(client, job_id), on_interrupt=GOES_ON)
    carry_out(manager, lambda client: watch_to_the_end(client, job_id, output), on_interrupt=GOES_ON)


async def watch_to_the_end(client: "ManagerClient", parent_job_id: str, output: Output) -> "ExitCode":
    """Show a parent job while it runs, then what it did."""
    from manager_service.client.exits import code_of_job
    from manager_service.client.follow import follow
    from manager_service.client.showing import show_end
    from manager_service.client.views import choose_view

    await client.get_parent_job(parent_job_id)  # a manager that is down is told at once, not waited for
    with choose_view() as view:
        parent_job = await follow(client, parent_job_id, view)
    children = [child async for child in client.list_child_jobs(parent_job_id)]
    show_end(parent_job, children, as_object=output is Output.JSON)
    return code_of_job(parent_job)


def cancel(
    job_id: ParentJobArgument,
    reason: Annotated[str, typer.Option(help="Why, for the children's reason.", show_default=False)] = "",
    manager: ManagerOption = DEFAULT_MANAGER,
    output: OutputOption = Output.TABLE,
) -> None:
    """Cancel a parent job: what waits is cancelled, what runs is interrupted."""
    _steer(manager, output, lambda client: client.cancel_parent_job(job_id, reason=reason))


def retry(
    job_id: ParentJobArgument,
    manager: ManagerOption = DEFAULT_MANAGER,
    output: OutputOption = Output.TABLE,
) -> None:
    """Run the failed children of a finished parent job again."""
    _steer(manager, output, lambda client: client.retry_parent_job(job_id))


def delete(
    job_id: ParentJobArgument,
    manager: ManagerOption = DEFAULT_MANAGER,
    output: OutputOption = Output.TABLE,
) -> None:
    """Delete a finished parent job with its children and logs."""
    from manager_service.client.session import carry_out
    from manager_service.client.showing import show_gone

    async def work(client: "ManagerClient") -> None:
        await client.delete_parent_job(job_id)
        show_gone("deleted", job_id, as_object=output is Output.JSON)

    carry_out(manager, work)


def logs(
    child_job_id: Annotated[
        str, typer.Argument(metavar="CHILD_ID", help="The child job's id.", show_envvar=False)
    ],
    *,
    attempt: Annotated[int, typer.Option(min=0, help="The attempt's number; 0 is the newest.")] = 0,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for more until the attempt ends.")] = False,
    manager: ManagerOption = DEFAULT_MANAGER,
    output: OutputOption = Output.TABLE,
) -> None:
    """Print the log of a child job, and why the attempt did not complete."""
    from manager_service.client.session import carry_out
    from manager_service.client.showing import print_logs

    carry_out(
        manager,
        lambda client: print_logs(client, child_job_id, attempt, follow=follow, as_objects=output is Output.JSON),
        on_interrupt="stopped reading; the job goes on",
    )


def _steer(
    manager: str, output: Output, call: "Callable[[ManagerClient], Awaitable[job_pb2.ParentJob]]"
) -> NoReturn:
    from manager_service.client.session import carry_out
    from manager_service.client.showing import show_parent

    async def work(client: "ManagerClient") -> None:
        show_parent(await call(client), as_object=output is Output.JSON)

    carry_out(manager, work)
