"""The options that say which objects of the targets are meant, and when an operation is worth its while."""

from typing import Annotated

import typer

from manager_service.client.options import Scope

ScopeOption = Annotated[
    Scope | None,
    typer.Option(
        help="What the children are done to: each table or index by itself, once they were found; customary is "
        "tables of servers, and files as one.  [default: database]",
        show_default=False,
    ),
]
IncludeOption = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN", help="Only objects of such a name, such as 'public.*'; repeat for more."),
]
ExcludeOption = Annotated[
    list[str] | None, typer.Option(metavar="PATTERN", help="No objects of such a name; repeat for more.")
]
OnlyIfOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[OPERATION][@TARGET][/OBJECT:]CONDITION",
        help="Only where this holds of what was measured, such as 'dead_ratio > 0.1'; repeat for more. "
        "'vacuum@orders/public.big*: dead_ratio > 0.3' is for some alone, and the most specific counts.",
    ),
]
