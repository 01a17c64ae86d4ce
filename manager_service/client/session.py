"""One command against a manager: connect, do the work, turn what went wrong into a sentence and an exit code."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import NoReturn

import typer

from manager_service.client.client import ManagerClient
from manager_service.client.errors import ClientError, InvalidAddressError
from manager_service.client.exits import ExitCode, code_of_error, sentence
from manager_service.client.talk import complain, tell

Work = Callable[[ManagerClient], Awaitable[ExitCode | None]]


def carry_out(manager: str, work: Work, *, on_interrupt: str = "interrupted") -> NoReturn:
    """Run the work with a client of the manager, and end the command.

    `None` from the work is completion. Ctrl-C ends it with `on_interrupt` on stderr and exit code 130.
    """
    try:
        gc.freeze()
        gc.enable()
        code = asyncio.run(_connected(manager, work))
    except KeyboardInterrupt:
        tell(on_interrupt)
        code = ExitCode.INTERRUPTED
    except InvalidAddressError as error:
        complain(str(error))
        code = ExitCode.REFUSED
    except ClientError as error:
        complain(sentence(error))
        code = code_of_error(error)
    raise typer.Exit(code)


async def _connected(manager: str, work: Work) -> ExitCode:
    async with ManagerClient(manager) as client:
        return await work(client) or ExitCode.COMPLETED
