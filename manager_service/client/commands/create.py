"""`overhaul create` and `overhaul plan`: ask a manager for a parent job, or for what it would be."""

# ruff: noqa: PLC0415 - gRPC and rich are imported inside the commands, so that `--help` does not wait for them

import asyncio
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from manager_service.client import parse
from manager_service.client.commands.objects import ExcludeOption, IncludeOption, OnlyIfOption, ScopeOption
from manager_service.client.options import (
    DEFAULT_MANAGER,
    ManagerOption,
    OperationOption,
    Output,
    OutputOption,
    Scope,
)

if TYPE_CHECKING:
    from manager_service.client.client import ManagerClient
    from manager_service.client.exits import ExitCode
    from manager_service.client.request import JobRequest


def create(
    *,
    target: Annotated[list[str] | None, typer.Option(help="A target's name; repeat for more.")] = None,
    target_label: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Every known target with this label; repeat to narrow."),
    ] = None,
    operation: OperationOption = None,
    scope: ScopeOption = None,
    include: IncludeOption = None,
    exclude: ExcludeOption = None,
    only_if: OnlyIfOption = None,
    name: Annotated[str, typer.Option(help="A name for people.", show_default=False)] = "",
    priority: Annotated[int, typer.Option(min=-100, max=100, help="Higher goes first.")] = 0,
    max_parallel: Annotated[int, typer.Option(min=0, help="The most children at once; 0 is no limit.")] = 0,
    timeout: Annotated[
        timedelta | None,
        typer.Option(
            parser=parse.span, metavar="SPAN", help="The longest one attempt may run, such as 30s or 2h."
        ),
    ] = None,
    deadline: Annotated[
        datetime | None,
        typer.Option(
            parser=parse.deadline, metavar="TIME", help="When what has not ended fails: ISO time or +2h."
        ),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="A label to find the job by; repeat for more.")
    ] = None,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="End at the first failed child.")] = False,
    max_failed: Annotated[
        int | None, typer.Option(min=0, help="End when more children than this have failed.")
    ] = None,
    max_failures: Annotated[
        int | None, typer.Option(min=1, max=100, help="The most attempts of a child that may fail.  [default: 3]")
    ] = None,
    max_losses: Annotated[
        int | None,
        typer.Option(min=1, max=100, help="The most that may be lost with their worker.  [default: 3]"),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show what would be created; no database is changed."),
    ] = False,
    allow_unknown_targets: Annotated[
        bool,
        typer.Option("--allow-unknown-targets", help="Take targets no worker served yet; their children wait."),
    ] = False,
    request_id: Annotated[
        str | None, typer.Option(help="Makes the command safe to repeat: the same id answers the same job.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow the job to its end; Ctrl-C stops only the watching.")
    ] = False,
    manager: ManagerOption = DEFAULT_MANAGER,
    output: OutputOption = Output.TABLE,
) -> None:
    """Create a maintenance job: one child job per target and operation, or per table or index.

    With --scope table or index, or --only-if, a child of each target finds out what there is, and measures it.
    With --dry-run too that takes a job, which is kept like any other: its further children end skipped, with the
    statements. Without either a dry run stores nothing, and knows no statements.
    """
    from manager_service.client.request import JobRequest, Operation
    from manager_service.client.session import carry_out

    if fail_fast and max_failed is not None:
        raise typer.BadParameter("--fail-fast and --max-failed exclude each other")
    operations = [Operation(name=called, options=given) for called, given in map(parse.operation, operation or ())]
    request = JobRequest(
        targets=target or (),
        target_labels=parse.pairs(target_label),
        operations=operations,
        name=name,
        priority=priority,
        max_parallel=max_parallel,
        timeout=timeout,
        deadline=deadline,
        labels=parse.pairs(label),
        fail_fast=fail_fast,
        max_failed=max_failed,
        max_failures=max_failures,
        max_losses=max_losses,
        allow_unknown_targets=allow_unknown_targets,
        scope=scope,
        include=include or (),
        exclude=exclude or (),
        only_if=[parse.threshold(text) for text in only_if or ()],
    )
    if dry_run:
        carry_out(manager, lambda client: show_planned(client, request, output, request_id))
    carry_out(
        manager,
        lambda client: _create(client, request, request_id, watch=watch, output=output),
        on_interrupt="stopped watching; the job goes on" if watch else "interrupted",
    )


def plan(
    targets: Annotated[
        list[str], typer.Argument(metavar="TARGET...", help="The targets by name.", show_envvar=False)
    ],
    *,
    operation: OperationOption = None,
    scope: Annotated[Scope, typer.Option(help="What the children would be done to.")] = Scope.TABLE,
    include: IncludeOption = None,
    exclude: ExcludeOption = None,
    only_if: OnlyIfOption = None,
    max_parallel: Annotated[
        int, typer.Option(min=0, help="Tell also how long it takes with so many children at once.")
    ] = 0,
    manager: ManagerOption = DEFAULT_MANAGER,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show what a job would do to each object, and what is left out and why; nothing is changed.

    The workers inspect their targets for it, and tell the statements, whom their locks keep out, and the measures
    by which each object is chosen. Unless told otherwise it plans table by table, as `create --scope table` does.
    The plan is kept as a job, whose children end skipped.
    """
    from manager_service.client.request import JobRequest, Operation
    from manager_service.client.session import carry_out

    request = JobRequest(
        targets=targets,
        operations=[
            Operation(name=called, options=given) for called, given in map(parse.operation, operation or ())
        ],
        scope=scope,
        include=include or (),
        exclude=exclude or (),
        only_if=[parse.threshold(text) for text in only_if or ()],
        max_parallel=max_parallel,
    )
    carry_out(manager, lambda client: show_planned(client, request, output, inspect=True))


async def show_planned(
    client: "ManagerClient",
    request: "JobRequest",
    output: Output,
    request_id: str | None = None,
    *,
    inspect: bool = False,
) -> "ExitCode | None":
    """Show what a request would make; where the targets have to be inspected for it, or are to be, wait for it."""
    from manager_service.client.exits import code_of_job
    from manager_service.client.follow import follow
    from manager_service.client.inspected import plan_inspected
    from manager_service.client.showing import show_plan
    from manager_service.client.views import choose_view

    plans = plan_inspected(client, request) if inspect else client.plan_parent_job(request, request_id=request_id)
    planned = await plans
    parent, children = planned.parent_job, list(planned.child_jobs)
    if parent.id:
        try:
            with choose_view() as view:
                parent = await follow(client, parent.id, view)
        except asyncio.CancelledError:
            # Nobody waits for the plan any more, and it is of no other use.
            await client.cancel_parent_job(parent.id, reason="whoever asked for the plan went away")
            raise
        children = [child async for child in client.list_child_jobs(parent.id)]
    show_plan(parent, children, as_object=output is Output.JSON)
    return code_of_job(parent) if parent.id else None


async def _create(
    client: "ManagerClient", request: "JobRequest", request_id: str | None, *, watch: bool, output: Output
) -> "ExitCode | None":
    from manager_service.client import as_json, render, talk
    from manager_service.client.commands.jobs import watch_to_the_end

    parent_job = await client.create_parent_job(request, request_id=request_id)
    if watch:
        talk.tell(f"created {parent_job.id}")
        return await watch_to_the_end(client, parent_job.id, output)
    if output is Output.JSON:
        talk.put(as_json.text(as_json.job(parent_job)))
    else:
        render.console().print(render.parent_table([parent_job]))
    return None
