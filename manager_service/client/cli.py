"""The `overhaul` program: its commands by name."""

from importlib.metadata import version
from typing import Annotated

import typer

from manager_service.client.commands import create, fleet, jobs, run

PROGRAM = "overhaul"


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        typer.echo(f"{PROGRAM} {version('overhaul')}")
        raise typer.Exit


def _describe(
    *,
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            # OVERHAUL_VERSION is what deployments call the release they run.
            allow_from_autoenv=False,
            help="Show the version and exit.",
        ),
    ] = False,
) -> None:
    """Database maintenance as leased jobs: `overhaul run app.db` does it all at once.

    The other commands speak to a manager that runs already. Exit codes: 0 completed, 1 any other end,
    2 refused or misused, 3 manager unreachable, 130 interrupted.
    """


def make_app() -> typer.Typer:
    """Return the program. Every option may come from the environment, under the name that its help shows."""
    app = typer.Typer(
        name=PROGRAM,
        callback=_describe,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"auto_envvar_prefix": "OVERHAUL", "help_option_names": ["--help", "-h"]},
    )
    app.command()(run.run)
    app.command()(create.create)
    app.command()(create.plan)
    app.command()(jobs.get)
    app.command("list")(jobs.list_jobs)
    app.command()(jobs.watch)
    app.command()(jobs.cancel)
    app.command()(fleet.pause)
    app.command()(fleet.resume)
    app.command()(jobs.retry)
    app.command()(jobs.delete)
    app.command()(jobs.logs)
    app.command()(fleet.workers)
    app.command()(fleet.targets)
    app.command()(fleet.drain)
    app.command()(fleet.forget)
    return app


app = make_app()
