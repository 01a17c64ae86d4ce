"""`overhaul run`: maintain databases without a manager or worker running anywhere."""

# ruff: noqa: PLC0415 - gRPC and rich are imported inside the commands, so that `--help` does not wait for them

from datetime import timedelta
from typing import Annotated

import typer

from manager_service.client import parse
from manager_service.client.commands.objects import ExcludeOption, IncludeOption, OnlyIfOption
from manager_service.client.options import OperationOption, Output, OutputOption, Scope


def run(
    targets: Annotated[
        list[str],
        typer.Argument(metavar="TARGET...", help="Databases: a path, a URL or NAME=URL.", show_envvar=False),
    ],
    *,
    operation: OperationOption = None,
    scope: Annotated[
        Scope | None,
        typer.Option(
            help="What the children are done to: each table or index by itself, once they were found.  "
            "[default: table for servers, database for files]",
            show_default=False,
        ),
    ] = None,
    include: IncludeOption = None,
    exclude: ExcludeOption = None,
    only_if: OnlyIfOption = None,
    store: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Keep the job's history there, such as sqlite:///overhaul.db."),
    ] = None,
    slots: Annotated[int | None, typer.Option(min=1, max=1000, help="The most operations at once.")] = None,
    timeout: Annotated[
        timedelta | None,
        typer.Option(
            parser=parse.span, metavar="SPAN", help="The longest each operation may run, such as 30s or 2h."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the statements that would run; change nothing.")
    ] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Maintain databases now: starts a manager and a worker, runs one job, stops both and leaves nothing behind.

    Ctrl-C cancels the job and waits for its end; a second one stops at once. --timeout bounds each
    operation, not the whole run. A URL with a password is refused.
    """
    from manager_service.client.crew import TEMPORARY
    from manager_service.client.request import Operation
    from manager_service.client.run import RunRequest
    from manager_service.client.running import run_and_show, show_statements

    named = [Operation(name=name, options=options) for name, options in map(parse.operation, operation or ())]
    request = RunRequest(
        targets=targets,
        operations=named,
        store=store or TEMPORARY,
        slots=slots,
        timeout=timeout,
        scope=scope,
        include=include or (),
        exclude=exclude or (),
        only_if=[parse.threshold(text) for text in only_if or ()],
        dry_run=dry_run,
    )
    # What the targets hold is asked of a worker alone where no objects have to be chosen.
    end = show_statements if dry_run and not request.inspects else run_and_show
    raise typer.Exit(end(request, as_object=output is Output.JSON))
