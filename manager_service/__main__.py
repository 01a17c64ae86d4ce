"""The program ``overhaul-manager``."""

import atexit
import gc
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from manager_service.config import LogFormat, LogLevel, Settings, StoreSync, parse_span, read_defaults, show_span
from manager_service.domain.fleet import Timing

_DEFAULT = Settings()
_TIMING = _DEFAULT.timing

program = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


def main() -> None:
    """Run the program."""
    # What is loaded stays to the end, so nobody need look for garbage in it: not while it is loaded, nor when the
    # process ends.
    gc.disable()
    atexit.register(gc.freeze)
    program()


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - the signature of a callback
    if wanted:
        typer.echo(f"overhaul-manager {version('overhaul')}")
        raise typer.Exit


def _span(value: str | int) -> int:
    """Read a span; a default is one already."""
    try:
        return value if isinstance(value, int) else parse_span(value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _take_config(context: typer.Context, path: Path | None) -> Path | None:
    """Let a file give the defaults of the options."""
    if path is None:
        return None
    options = {option.name for option in context.command.params if option.name}
    try:
        context.default_map = read_defaults(path, options - {"config", "help", "stdin_lifeline"})
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return path


@program.callback()
def overhaul_manager(
    *,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Manage database maintenance as leased jobs."""


@program.command()
def serve(
    *,
    _config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            callback=_take_config,
            is_eager=True,
            envvar="OVERHAUL_MANAGER_CONFIG",
            help="A TOML file with values for these options, by their long names; the command line and the "
            "environment go first.",
        ),
    ] = None,
    listen: Annotated[
        str, typer.Option(envvar="OVERHAUL_LISTEN", help="HOST:PORT to listen on; port 0 takes a free one.")
    ] = _DEFAULT.listen,
    store: Annotated[
        str,
        typer.Option(
            envvar="OVERHAUL_STORE",
            help="The job store's URL, sqlite:///FILE or postgresql://USER@HOST/DATABASE; 'temporary' makes one "
            "that ends with the process.",
        ),
    ] = _DEFAULT.store,
    synchronous: Annotated[
        StoreSync,
        typer.Option(
            envvar="OVERHAUL_SYNCHRONOUS",
            help="full: what was answered survives a power failure; normal: the last moments may not.",
        ),
    ] = _DEFAULT.synchronous,
    store_pooled: Annotated[
        bool,
        typer.Option(
            "--store-pooled",
            envvar="OVERHAUL_STORE_POOLED",
            help="A connection pooler stands before PostgreSQL: prepare nothing, and look instead of listening.",
        ),
    ] = _DEFAULT.store_pooled,
    store_wait: Annotated[
        int,
        typer.Option(
            parser=_span,
            metavar="SPAN",
            envvar="OVERHAUL_STORE_WAIT",
            show_default=show_span(_DEFAULT.store_wait),
            help="How long to wait at the start for a PostgreSQL that cannot be reached, before giving up.",
        ),
    ] = _DEFAULT.store_wait,
    retention: Annotated[
        int,
        typer.Option(
            parser=_span,
            metavar="SPAN",
            envvar="OVERHAUL_RETENTION",
            show_default=show_span(_DEFAULT.retention),
            help="How long finished parent jobs are kept.",
        ),
    ] = _DEFAULT.retention,
    heartbeat_interval: Annotated[
        int,
        typer.Option(
            parser=_span,
            metavar="SPAN",
            envvar="OVERHAUL_HEARTBEAT_INTERVAL",
            show_default=show_span(_TIMING.heartbeat_interval),
            help="How often workers beat.",
        ),
    ] = _TIMING.heartbeat_interval,
    lease_duration: Annotated[
        int,
        typer.Option(
            parser=_span,
            metavar="SPAN",
            envvar="OVERHAUL_LEASE_DURATION",
            show_default=show_span(_TIMING.lease_duration),
            help="How long a lease lasts after each heartbeat; at least three heartbeat intervals.",
        ),
    ] = _TIMING.lease_duration,
    accept_within: Annotated[
        int,
        typer.Option(
            parser=_span,
            metavar="SPAN",
            envvar="OVERHAUL_ACCEPT_WITHIN",
            show_default=show_span(_TIMING.accept_within),
            help="How long a worker has to name a new lease; at least two heartbeat intervals.",
        ),
    ] = _TIMING.accept_within,
    poll_window: Annotated[
        int,
        typer.Option(
            parser=_span,
            metavar="SPAN",
            envvar="OVERHAUL_POLL_WINDOW",
            show_default=show_span(_TIMING.poll_window),
            help="The longest a poll for leases hangs.",
        ),
    ] = _TIMING.poll_window,
    shutdown_grace: Annotated[
        int,
        typer.Option(
            parser=_span,
            metavar="SPAN",
            envvar="OVERHAUL_SHUTDOWN_GRACE",
            show_default=show_span(_DEFAULT.shutdown_grace),
            help="How long calls under way may take to end.",
        ),
    ] = _DEFAULT.shutdown_grace,
    log_level: Annotated[
        LogLevel, typer.Option(envvar="OVERHAUL_LOG_LEVEL", help="From which level on to log, to stderr.")
    ] = _DEFAULT.log_level,
    log_format: Annotated[
        LogFormat, typer.Option(envvar="OVERHAUL_LOG_FORMAT", help="How log lines are written.")
    ] = _DEFAULT.log_format,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure",
            envvar="OVERHAUL_INSECURE",
            help="Allow plaintext beyond loopback: anyone may then steer.",
        ),
    ] = _DEFAULT.insecure,
    stdin_lifeline: Annotated[bool, typer.Option("--stdin-lifeline", hidden=True)] = _DEFAULT.stdin_lifeline,
) -> None:
    """Serve until told to end; when ready, one line of JSON on stdout says where."""
    # Late, so that --help and --version answer at once.
    from manager_service.app.process import run  # noqa: PLC0415 - see above

    timing = Timing(
        heartbeat_interval=heartbeat_interval,
        lease_duration=lease_duration,
        accept_within=accept_within,
        poll_window=poll_window,
    )
    settings = Settings(
        listen=listen,
        store=store,
        synchronous=synchronous,
        store_pooled=store_pooled,
        store_wait=store_wait,
        retention=retention,
        timing=timing,
        shutdown_grace=shutdown_grace,
        log_level=log_level,
        log_format=log_format,
        insecure=insecure,
        stdin_lifeline=stdin_lifeline,
    )
    sys.exit(run(settings))


@program.command()
def migrate(
    *,
    store: Annotated[
        str, typer.Option(envvar="OVERHAUL_STORE", help="The job store's URL, postgresql://USER@HOST/DATABASE.")
    ],
) -> None:
    """Make the tables of a PostgreSQL job store, or bring them to this release; several may do so at once."""
    from manager_service.app.process import run_migration  # noqa: PLC0415 - as above

    sys.exit(run_migration(store))


if __name__ == "__main__":
    main()
