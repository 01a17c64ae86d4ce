"""Between the enums of the contract and those of the domain, member by member and by name."""

from enum import Enum
from typing import Generic, Protocol, TypeVar

from manager_service.domain.errors import FieldViolation, InvalidRequestError
from manager_service.domain.events import BulkChangeKind
from manager_service.domain.fleet import OptionType, SessionState, WorkerDirective
from manager_service.domain.leases import LeaseDirective, ReleaseReason, ReportStatus
from manager_service.domain.states import (
    ChildJobState,
    FailureCategory,
    FailureMode,
    Outcome,
    ParentJobState,
    Scope,
    Verdict,
    WaitReason,
)
from overhaul.v1 import fleet_service_pb2, job_pb2, job_service_pb2, lease_service_pb2

D = TypeVar("D", bound=Enum)
W = TypeVar("W", bound=int)
W_co = TypeVar("W_co", bound=int, covariant=True)


class _WireEnum(Protocol[W_co]):
    def Value(self, name: str) -> W_co: ...  # noqa: N802 - protobuf's name


class EnumTable(Generic[D, W]):
    """One pair of enums; every member of the domain's has its value on the wire, or this cannot be made."""

    def __init__(self, domain: type[D], wire: _WireEnum[W], prefix: str) -> None:
        self._out = {member: wire.Value(f"{prefix}_{member.name}") for member in domain}
        self._in: dict[int, D] = {value: member for member, value in self._out.items()}
        self._unset = wire.Value(f"{prefix}_UNSPECIFIED")

    def out(self, member: D | None) -> W:
        """Convert for the wire; ``None`` is UNSPECIFIED."""
        return self._unset if member is None else self._out[member]

    def read(self, value: int, field: str) -> D | None:
        """Read from the wire; UNSPECIFIED is ``None``.

        Raises:
            InvalidRequestError: the value is none of this release's; ``field`` names its place.
        """
        if value == self._unset:
            return None
        if value not in self._in:
            raise InvalidRequestError([FieldViolation(field, f"{value} is not a value that this manager knows")])
        return self._in[value]

    def known(self) -> frozenset[int]:
        """Return the values on the wire that have a place here, without UNSPECIFIED."""
        return frozenset(self._in)


PARENT_JOB_STATE = EnumTable(ParentJobState, job_pb2.ParentJobState, "PARENT_JOB_STATE")
CHILD_JOB_STATE = EnumTable(ChildJobState, job_pb2.ChildJobState, "CHILD_JOB_STATE")
OUTCOME = EnumTable(Outcome, job_pb2.Outcome, "OUTCOME")
VERDICT = EnumTable(Verdict, job_pb2.Verdict, "VERDICT")
FAILURE_CATEGORY = EnumTable(FailureCategory, job_pb2.FailureCategory, "FAILURE_CATEGORY")
SCOPE = EnumTable(Scope, job_pb2.Scope, "SCOPE")
FAILURE_MODE = EnumTable(FailureMode, job_pb2.FailureMode, "FAILURE_MODE")
WAIT_REASON = EnumTable(WaitReason, job_pb2.WaitReason, "WAIT_REASON")
BULK_CHANGE_KIND = EnumTable(BulkChangeKind, job_service_pb2.BulkChangeKind, "BULK_CHANGE_KIND")
OPTION_TYPE = EnumTable(OptionType, lease_service_pb2.OptionType, "OPTION_TYPE")
LEASE_DIRECTIVE = EnumTable(LeaseDirective, lease_service_pb2.LeaseDirective, "LEASE_DIRECTIVE")
WORKER_DIRECTIVE = EnumTable(WorkerDirective, lease_service_pb2.WorkerDirective, "WORKER_DIRECTIVE")
RELEASE_REASON = EnumTable(ReleaseReason, lease_service_pb2.ReleaseReason, "RELEASE_REASON")
REPORT_STATUS = EnumTable(ReportStatus, lease_service_pb2.ReportStatus, "REPORT_STATUS")
SESSION_STATE = EnumTable(SessionState, fleet_service_pb2.SessionState, "SESSION_STATE")
