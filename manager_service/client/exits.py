"""How a command ends: its exit code, and the sentence on stderr that goes with it."""

from enum import IntEnum

import grpc

from manager_service.client.errors import ClientError, ManagerUnreachableError
from overhaul.v1 import job_pb2


class ExitCode(IntEnum):
    """What a script can tell from the end of a command."""

    COMPLETED = 0
    OTHERWISE = 1
    REFUSED = 2
    UNREACHABLE = 3
    INTERRUPTED = 130


REFUSALS = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
    }
)


def code_of_error(error: ClientError) -> ExitCode:
    """Return the exit code of a call that failed for good."""
    if isinstance(error, ManagerUnreachableError):
        return ExitCode.UNREACHABLE
    return ExitCode.REFUSED if error.code in REFUSALS else ExitCode.OTHERWISE


def code_of_job(parent_job: job_pb2.ParentJob) -> ExitCode:
    """Return the exit code of a parent job that reached a final state."""
    completed = parent_job.state == job_pb2.PARENT_JOB_STATE_COMPLETED
    return ExitCode.COMPLETED if completed else ExitCode.OTHERWISE


def sentence(error: ClientError) -> str:
    """Return what to tell about a call that failed for good, and what can be done."""
    if isinstance(error, ManagerUnreachableError):
        return (
            f"{error.message}; start one with `overhaul-manager serve`,"
            " or name another with --manager or OVERHAUL_MANAGER"
        )
    if error.code is grpc.StatusCode.UNIMPLEMENTED:
        return f"what answers there is not a manager of this version ({error.message})"
    fields = "; ".join(
        f"{violation.field}: {violation.description}"
        for violation in error.field_violations
        if violation.description not in error.message
    )
    near = error.metadata.get("near", "")
    hint = f" (near: {near})" if near and near not in error.message else ""
    return error.message + (f" ({fields})" if fields else "") + hint
