"""The console script `overhaul-worker`."""

import atexit
import gc
import json
import signal
import sys
from dataclasses import asdict, replace
from enum import StrEnum, auto
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from worker_service import config as settings
from worker_service.domain.errors import WorkerError
from worker_service.plan import DEFAULT_OPERATIONS, TargetPlan, WantedOperation
from worker_service.targets import parse_target, refuse_passwords

PROGRAM = "overhaul-worker"


class LogFormat(StrEnum):
    """How logs are written."""

    CONSOLE = auto()
    JSON = auto()


class LogLevel(StrEnum):
    """The lowest level that is logged."""

    DEBUG = auto()
    INFO = auto()
    WARNING = auto()
    ERROR = auto()


class Output(StrEnum):
    """What a command prints on stdout."""

    TABLE = auto()
    JSON = auto()


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        typer.echo(f"{PROGRAM} {version('overhaul')}")
        raise typer.Exit


def _load_file(context: typer.Context, path: Path | None) -> Path | None:
    """Fill the options' defaults from the file, before they are read."""
    content = settings.read_file(path) if path else {}
    context.obj = content
    plain = {key: value for key, value in content.items() if key not in ("targets", "labels")}
    context.default_map = {**plain, "plan": {}}
    return path


TargetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="[NAME=]URL",
        help="A database to serve: a path, a URL, or either with a name before it. Repeatable. "
        "[env var: OVERHAUL_TARGETS, separated by spaces or commas; file: [[targets]]]",
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        envvar="OVERHAUL_CONFIG",
        is_eager=True,
        callback=_load_file,
        metavar="FILE",
        help="A TOML file with these options; the command line and the environment come first.",
    ),
]
DistinctOption = Annotated[bool, typer.Option("--distinct-targets", hidden=True)]

app = typer.Typer(
    name=PROGRAM,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


@app.callback(invoke_without_command=True)
def serve(
    context: typer.Context,
    *,
    manager: Annotated[
        str,
        typer.Option(
            envvar="OVERHAUL_MANAGER", metavar="HOST:PORT", help="The manager; a comma separates several."
        ),
    ] = settings.DEFAULT_MANAGER,
    target: TargetOption = None,
    name: Annotated[
        str | None,
        typer.Option(envvar="OVERHAUL_NAME", help="The worker's name. Default: the host's, with a random suffix."),
    ] = None,
    slots: Annotated[
        int, typer.Option(envvar="OVERHAUL_SLOTS", min=1, max=1000, help="How many operations run at once.")
    ] = 2,
    max_parallel: Annotated[
        int,
        typer.Option(
            envvar="OVERHAUL_MAX_PARALLEL",
            min=1,
            max=1000,
            help="How many operations run at once on one target, on different objects of it. A target of the file "
            "may say otherwise.",
        ),
    ] = 1,
    drain_grace: Annotated[
        float,
        typer.Option(
            envvar="OVERHAUL_DRAIN_GRACE",
            min=0,
            metavar="SECONDS",
            help="How long operations may go on after SIGTERM; then they are interrupted and handed back.",
        ),
    ] = 30.0,
    connect_timeout: Annotated[
        float | None,
        typer.Option(
            envvar="OVERHAUL_CONNECT_TIMEOUT",
            min=0,
            metavar="SECONDS",
            help="Give up with exit code 3 when no manager answers for so long at the start. Default: never.",
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="A label of the worker. Repeatable. "
            "[env var: OVERHAUL_LABELS, separated by spaces or commas; file: labels = {}]",
        ),
    ] = None,
    log_format: Annotated[
        LogFormat, typer.Option(envvar="OVERHAUL_LOG_FORMAT", help="How logs are written, on stderr.")
    ] = LogFormat.CONSOLE,
    log_level: Annotated[
        LogLevel, typer.Option(envvar="OVERHAUL_LOG_LEVEL", help="The lowest level that is logged.")
    ] = LogLevel.INFO,
    config_file: ConfigOption = None,
    stdin_lifeline: Annotated[bool, typer.Option("--stdin-lifeline", hidden=True)] = False,
    distinct_targets: DistinctOption = False,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Serve databases to a manager: run the operations it leases to this worker, and report how they ended.

    Prints one line of JSON on stdout when it is registered; logs go to stderr. SIGTERM drains, a second one
    hands everything back at once. SIGHUP has the targets of the file read again, while what runs goes on.
    Exit codes: 0 ended as asked, 1 results could not be delivered, 2 refused or misused, 3 no manager within
    --connect-timeout.
    """
    if context.invoked_subcommand is not None:
        return
    # One that comes before it can be obeyed is kept until then.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    from worker_service.app import serve as run  # noqa: PLC0415 - --help and --version load nothing heavy

    sources = replace(_sources(context, target, config_file), max_parallel=max_parallel)
    config = settings.WorkerConfig(
        manager=manager,
        targets=sources.targets(),
        name=name or settings.default_name(),
        slots=slots,
        drain_grace=drain_grace,
        connect_timeout=connect_timeout,
        labels=_labels(context, label),
        log_format=log_format.value,
        log_level=log_level.value,
        stdin_lifeline=stdin_lifeline,
        distinct_targets=distinct_targets,
        sources=sources,
    )
    raise typer.Exit(run(config))


@app.command()
def plan(
    context: typer.Context,
    *,
    target: TargetOption = None,
    operation: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:OPT=VAL,...]", help="An operation. Repeatable. Default: vacuum, analyze, reindex."
        ),
    ] = None,
    output: Annotated[
        Output, typer.Option(envvar="OVERHAUL_OUTPUT", help="A table for people or JSON for programs.")
    ] = Output.TABLE,
    config_file: ConfigOption = None,
    distinct_targets: DistinctOption = False,
) -> None:
    """Print the statements that operations would run. Needs no manager and changes nothing."""
    from worker_service.app import plan as make  # noqa: PLC0415 - --help and --version load nothing heavy

    wanted = tuple(WantedOperation.parse(text) for text in operation or ())
    orders = _sources(context, target, config_file).targets()
    plans = make(orders, wanted or DEFAULT_OPERATIONS, distinct=distinct_targets)
    typer.echo(json.dumps(_as_json(plans)) if output is Output.JSON else _as_table(plans))


def _sources(context: typer.Context, given: list[str] | None, file: Path | None) -> settings.Sources:
    """Return where the targets are named."""
    orders = tuple(parse_target(text) for text in given or ())
    refuse_passwords(orders)
    return settings.Sources(command_line=orders, file=file, content=_file(context))


def _labels(context: typer.Context, given: list[str] | None) -> dict[str, str]:
    return (
        settings.parse_labels(given or [])
        or settings.environment_labels(settings.from_environment("OVERHAUL_LABELS"))
        or settings.file_labels(_file(context))
    )


def _file(context: typer.Context) -> dict[str, Any]:
    """Return what the configuration file says; of a subcommand's own file first."""
    parent = context.parent.obj if context.parent else None
    content: dict[str, Any] = context.obj or parent or {}
    return content


def _as_json(plans: list[TargetPlan]) -> dict[str, Any]:
    return {"targets": [asdict(one) for one in plans]}


def _as_table(plans: list[TargetPlan]) -> str:
    lines: list[str] = []
    for one in plans:
        lines.append(f"{one.name} ({one.engine})")
        for planned in one.operations:
            lines.append(f"  {planned.operation}")
            lines += [f"    {statement};" for statement in planned.statements] or ["    nothing to do"]
    return "\n".join(lines)


def main() -> None:
    """Run the program; a refusal is one sentence on stderr and exit code 2."""
    # What is loaded stays to the end, so nobody need look for garbage in it: not while it is loaded, nor when the
    # process ends.
    gc.disable()
    atexit.register(gc.freeze)
    try:
        app(prog_name=PROGRAM)
    except WorkerError as error:
        sys.stderr.write(" ".join(str(error).split()) + "\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
