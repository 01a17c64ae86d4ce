"""What a call can be refused for. Each class carries its data; one table of the api maps it to the wire."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from manager_service.domain.fleet import Versions


class ManagerError(Exception):
    """The root of every error that the manager raises on purpose; its text is a sentence for the caller."""


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of a request that is wrong, and what to do about it."""

    field: str
    description: str


class InvalidRequestError(ManagerError):
    """One or more fields of the request are wrong."""

    def __init__(self, violations: Sequence[FieldViolation]) -> None:
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in violations))
        self.violations = tuple(violations)


class RequestIdReusedError(ManagerError):
    """The request_id was used for another request."""

    def __init__(self, request_id: str, parent_job_id: str) -> None:
        super().__init__(
            f"request_id {request_id!r} was used for another request; use a new one (its job is {parent_job_id})"
        )
        self.request_id = request_id
        self.parent_job_id = parent_job_id


class TargetNotFoundError(ManagerError):
    """No worker ever served some of the targets."""

    def __init__(self, missing: Sequence[str], near: Mapping[str, Sequence[str]]) -> None:
        first = missing[0]
        hint = f"; did you mean {', '.join(near[first])}?" if near.get(first) else ""
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        super().__init__(
            f"no worker ever served target {first!r}{more}{hint} "
            "(start a worker with it, or set allow_unknown_targets)"
        )
        self.missing = tuple(missing)
        self.near = {name: tuple(names) for name, names in near.items()}


class ParentJobNotFoundError(ManagerError):
    """No parent job has this id."""

    def __init__(self, parent_job_id: str) -> None:
        super().__init__(f"no parent job has the id {parent_job_id!r}; it may have been deleted or pruned")
        self.parent_job_id = parent_job_id


class ChildJobNotFoundError(ManagerError):
    """No child job has this id."""

    def __init__(self, child_job_id: str) -> None:
        super().__init__(f"no child job has the id {child_job_id!r}; it may have been deleted or pruned")
        self.child_job_id = child_job_id


class WorkerNotFoundError(ManagerError):
    """No worker of this name is known."""

    def __init__(self, worker_name: str) -> None:
        super().__init__(f"no worker is called {worker_name!r}; see the list of workers")
        self.worker_name = worker_name


class TargetUnknownError(ManagerError):
    """No target of this name is known."""

    def __init__(self, target: str) -> None:
        super().__init__(f"no target is called {target!r}; see the list of targets")
        self.target = target


class TargetInUseError(ManagerError):
    """The target is served by a live worker or has children that have not ended."""

    def __init__(self, target: str, why: str) -> None:
        super().__init__(f"target {target!r} cannot be forgotten: {why}")
        self.target = target
        self.why = why


class WrongStateError(ManagerError):
    """The parent job's state forbids the call."""

    def __init__(self, parent_job_id: str, state: str, verb: str) -> None:
        super().__init__(f"parent job {parent_job_id} is {state} and cannot be {verb}")
        self.parent_job_id = parent_job_id
        self.state = state


class SessionUnknownError(ManagerError):
    """The session is unknown or closed; the worker has to register again."""

    def __init__(self, session_id: str) -> None:
        super().__init__(f"session {session_id!r} is unknown or closed; register again")
        self.session_id = session_id


class SessionSupersededError(ManagerError):
    """A newer instance of the same worker_name took over."""

    def __init__(self, worker_name: str) -> None:
        super().__init__(
            f"a newer instance of worker {worker_name!r} took over; finish what runs and end this process"
        )
        self.worker_name = worker_name


class TargetIdentityMismatchError(ManagerError):
    """The target's name is known with another identity."""

    def __init__(self, target: str, known: str, given: str) -> None:
        super().__init__(
            f"target {target!r} is known as another database ({known}, not {given}); "
            "rename the target, correct its URL, or forget the name if the database was replaced"
        )
        self.target = target
        self.known = known
        self.given = given


class ProtocolVersionUnsupportedError(ManagerError):
    """The worker speaks a version of the protocol that this manager does not take."""

    def __init__(self, given: int, taken: Versions) -> None:
        older = "the worker" if given < taken.oldest else "the managers first"
        super().__init__(
            f"the worker speaks version {given} of the protocol, and this manager takes {taken}; upgrade {older}"
        )
        self.given = given
        self.taken = taken


class LogGapError(ManagerError):
    """Log entries start beyond what is stored."""

    def __init__(self, next_offset: int) -> None:
        super().__init__(f"log entries are missing before this offset; go on at {next_offset}")
        self.next_offset = next_offset


class OverloadedError(ManagerError):
    """A queue is full; try again after ``retry_after`` seconds."""

    def __init__(self, what: str, retry_after: float) -> None:
        super().__init__(f"{what} is full; try again in {retry_after:g} s")
        self.retry_after = retry_after


class StoreUnavailableError(ManagerError):
    """The job store cannot be read or written now: disk full, locked, gone."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the job store is not available: {why}")
        self.why = why


class StoreInUseError(ManagerError):
    """Another manager has the embedded store open."""

    def __init__(self, where: str) -> None:
        super().__init__(
            f"the job store {where} is in use by another manager; an SQLite store serves one manager: "
            "stop the other one, or use another store"
        )
        self.where = where


class InvalidStoreError(ManagerError):
    """The job store's URL is wrong, or what it names is no job store of this release."""


class ShuttingDownError(ManagerError):
    """This manager is stopping; try again, there or at another."""

    def __init__(self) -> None:
        super().__init__("this manager is shutting down; try again")
