"""What `overhaul run` shows, and with which exit code it ends."""

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any, TypeVar

from manager_service.client import as_json
from manager_service.client.crew import TEMPORARY, Commands
from manager_service.client.errors import ClientError
from manager_service.client.exits import ExitCode, code_of_error, code_of_job, sentence
from manager_service.client.processes import ProgramEndedError, ProgramNotStartedError
from manager_service.client.run import RunRequest, StoppedError, plan, run
from manager_service.client.showing import show_end, show_plan
from manager_service.client.talk import complain, put, tell
from manager_service.client.views import choose_view
from manager_service.client.words import safe

ResultT = TypeVar("ResultT")

COMMANDS = Commands()


def run_and_show(request: RunRequest, *, as_object: bool) -> ExitCode:
    """Run the job, print what it did, and return the exit code. Both programs are gone before it prints."""
    end = _ended(run(request, COMMANDS, choose_view()))
    if isinstance(end, ExitCode):
        return end
    show = show_plan if request.dry_run else show_end
    show(end.parent_job, end.child_jobs, as_object=as_object)
    if request.store != TEMPORARY:
        tell(f"the history is kept in {request.store}; `overhaul-manager serve --store` shows it")
    return ExitCode.INTERRUPTED if end.interrupted else code_of_job(end.parent_job)


def show_statements(request: RunRequest, *, as_object: bool) -> ExitCode:
    """Print the statements that would run, and return the exit code."""
    planned = _ended(plan(request, COMMANDS))
    if isinstance(planned, ExitCode):
        return planned
    if as_object:
        put(as_json.text(planned))
    else:
        print_statements(planned)
    return ExitCode.COMPLETED


def print_statements(planned: dict[str, Any]) -> None:
    """Print a plan for people: the statements beneath the target and operation they belong to."""
    for target in planned["targets"]:
        for operation in target["operations"]:
            put(f"-- {safe(operation['operation'])} {safe(target['name'])} ({safe(target['engine'])})")
            for statement in operation["statements"]:
                put(safe(statement))


def _ended(work: Coroutine[Any, Any, ResultT]) -> ResultT | ExitCode:
    """Return what the work answers, or the exit code of what went wrong after telling it."""
    gc.freeze()
    gc.enable()
    try:
        return asyncio.run(work)
    except (StoppedError, KeyboardInterrupt):
        tell("stopped")
        return ExitCode.INTERRUPTED
    except ProgramEndedError as error:
        if error.refusal is not None:
            complain(error.refusal)
            return ExitCode.REFUSED
        complain(str(error))
        for line in error.last_words:
            tell(f"  {line}")
        return ExitCode.OTHERWISE
    except ProgramNotStartedError as error:
        complain(str(error))
        return ExitCode.OTHERWISE
    except ClientError as error:
        complain(sentence(error))
        return code_of_error(error)
