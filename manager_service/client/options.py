"""The options that several commands share."""

from enum import StrEnum, auto
from typing import Annotated

import typer

DEFAULT_MANAGER = "127.0.0.1:7420"
"""As in `channel`, which is not imported here because it loads gRPC: `--help` must be quick."""


class Output(StrEnum):
    """What a command prints on stdout."""

    TABLE = auto()
    JSON = auto()


class Scope(StrEnum):
    """What the children of a parent job are done to: customary is tables of servers, and files as one."""

    DATABASE = auto()
    TABLE = auto()
    INDEX = auto()
    CUSTOMARY = auto()


class ParentState(StrEnum):
    """The states of a parent job that a list can be narrowed to."""

    PLANNING = auto()
    RUNNING = auto()
    CANCELLING = auto()
    COMPLETED = auto()
    PARTIALLY_COMPLETED = auto()
    FAILED = auto()
    CANCELLED = auto()


ManagerOption = Annotated[
    str,
    typer.Option(
        "--manager", envvar="OVERHAUL_MANAGER", metavar="HOST:PORT", help="The manager; a comma separates several."
    ),
]
OutputOption = Annotated[
    Output,
    typer.Option("--output", envvar="OVERHAUL_OUTPUT", help="A table for people or JSON for programs."),
]
OperationOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME[:OPT=VAL,...]",
        help="An operation; repeat for more, in their order.  [default: vacuum, analyze, reindex]",
    ),
]
ParentJobArgument = Annotated[str, typer.Argument(metavar="ID", help="The parent job's id.", show_envvar=False)]
