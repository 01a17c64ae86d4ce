import grpc
import pytest
from google.protobuf.any_pb2 import Any as PackedAny
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # ships no types

from manager_service.api.errors import REFUSALS, Status, defect, refused
from manager_service.domain import errors
from manager_service.domain.errors import FieldViolation, InvalidRequestError, ManagerError, OverloadedError
from manager_service.domain.fleet import Versions
from manager_service.store.errors import ConnectionLostError
from overhaul.v1 import error_reason_pb2

EXAMPLES: list[ManagerError] = [
    InvalidRequestError([FieldViolation("a", "is wrong")]),
    errors.RequestIdReusedError("r", "p"),
    errors.TargetNotFoundError(["ap", "b"], {"ap": ["app"]}),
    errors.ParentJobNotFoundError("p"),
    errors.ChildJobNotFoundError("c"),
    errors.WorkerNotFoundError("w"),
    errors.TargetUnknownError("t"),
    errors.TargetInUseError("t", "it is served"),
    errors.WrongStateError("p", "running", "deleted"),
    errors.SessionUnknownError("s"),
    errors.SessionSupersededError("w"),
    errors.TargetIdentityMismatchError("t", "a", "b"),
    errors.ProtocolVersionUnsupportedError(2, Versions(newest=1)),
    errors.LogGapError(7),
    OverloadedError("q", 1.5),
    errors.StoreUnavailableError("disk full"),
    errors.StoreInUseError("x.db"),
    errors.InvalidStoreError("x"),
    errors.ShuttingDownError(),
]


def details(status: Status) -> dict[str, PackedAny]:
    body = status_pb2.Status.FromString(dict(status.trailing_metadata)["grpc-status-details-bin"])
    assert body.code == status.code.value[0]
    assert body.message == status.details
    return {detail.TypeName(): detail for detail in body.details}


def error_info(status: Status) -> error_details_pb2.ErrorInfo:
    info = error_details_pb2.ErrorInfo()
    details(status)["google.rpc.ErrorInfo"].Unpack(info)
    return info


def every_error() -> set[type[ManagerError]]:
    found, left = set(), [ManagerError]
    while left:
        subclasses = left.pop().__subclasses__()
        found.update(subclasses)
        left.extend(subclasses)
    return {kind for kind in found if kind.__module__ == errors.__name__}


def test_the_table_has_every_error() -> None:
    assert set(REFUSALS) == every_error()
    assert {type(example) for example in EXAMPLES} == every_error()


def test_an_error_of_the_store_is_told_as_the_domains_that_it_is() -> None:
    status = refused(ConnectionLostError("server closed the connection"))

    assert status == refused(errors.StoreUnavailableError("server closed the connection"))


def test_the_table_uses_every_reason() -> None:
    used = {refusal.reason for refusal in REFUSALS.values()} | {error_reason_pb2.ERROR_REASON_INTERNAL}

    assert used == set(error_reason_pb2.ErrorReason.values()) - {0}


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_each_tells_its_reason_without_the_prefix(error: ManagerError) -> None:
    info = error_info(refused(error))

    assert info.domain == "overhaul.v1"
    assert f"ERROR_REASON_{info.reason}" in error_reason_pb2.ErrorReason.keys()  # noqa: SIM118 - no mapping


def test_metadata_names_what_was_refused() -> None:
    error = errors.TargetNotFoundError(["ap", "b"], {"ap": ["app", "apple"]})

    assert dict(error_info(refused(error)).metadata) == {"target": "ap", "near": "app, apple"}


def test_wrong_fields_are_listed() -> None:
    request = error_details_pb2.BadRequest()

    status = refused(InvalidRequestError([FieldViolation("name", "is wrong")]))
    details(status)["google.rpc.BadRequest"].Unpack(request)

    assert [(item.field, item.description) for item in request.field_violations] == [("name", "is wrong")]


def test_what_may_be_tried_again_says_when() -> None:
    retry = error_details_pb2.RetryInfo()

    details(refused(OverloadedError("q", 1.5)))["google.rpc.RetryInfo"].Unpack(retry)

    assert retry.retry_delay.ToMilliseconds() == 1_500


@pytest.mark.parametrize("error", [errors.StoreUnavailableError("x"), errors.ShuttingDownError()])
def test_what_is_away_says_when_to_try_again(error: ManagerError) -> None:
    assert refused(error).code is grpc.StatusCode.UNAVAILABLE
    assert "google.rpc.RetryInfo" in details(refused(error))


@pytest.mark.parametrize("letter", ["x", "ä", "🛠"])
def test_however_much_is_wrong_it_fits_into_a_clients_metadata(letter: str) -> None:
    many = [FieldViolation(letter * 300, letter * 5_000) for _ in range(1_000)]

    status = refused(InvalidRequestError(many))

    percent_encoded = 3 * len(status.details.encode())
    assert percent_encoded + len(dict(status.trailing_metadata)["grpc-status-details-bin"]) < 7_000


def test_a_defect_tells_its_incident_and_no_more() -> None:
    status = defect("i-1")

    assert status.code is grpc.StatusCode.INTERNAL
    assert dict(error_info(status).metadata) == {"incident": "i-1"}
