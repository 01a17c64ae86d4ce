import json
from datetime import timedelta
from enum import Enum
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # ships no types
from grpc_status import rpc_status

from overhaul.v1 import error_reason_pb2, job_pb2
from overhaul.v1 import lease_service_pb2 as wire
from worker_service.domain import errors, outcome
from worker_service.domain.lock_waits import LockWaiter
from worker_service.domain.manager import LeaseDirective, Report, ReportStatus, WorkerDirective, WorkerState
from worker_service.domain.operation import OptionType
from worker_service.manager_client import address_of, connect, convert
from worker_service.manager_client.channel import service_config
from worker_service.manager_client.errors import translate


class TestEnums:
    @pytest.mark.parametrize(
        ("ours", "table", "theirs", "without"),
        [
            (OptionType, convert.OPTION_TYPES, wire.OptionType, set()),
            (WorkerState, convert.STATES, wire.WorkerState, set()),
            (outcome.Outcome, convert.OUTCOMES, job_pb2.Outcome, set()),
            (outcome.Verdict, convert.VERDICTS, job_pb2.Verdict, set()),
            (
                outcome.FailureCategory,
                convert.CATEGORIES,
                job_pb2.FailureCategory,
                # The manager's own: no worker can report that it was lost.
                {job_pb2.FAILURE_CATEGORY_WORKER_LOST},
            ),
            (outcome.ReleaseReason, convert.RELEASES, wire.ReleaseReason, set()),
        ],
    )
    def test_each_member_that_is_sent_has_its_place(
        self, ours: type[Enum], table: dict[Any, int], theirs: Any, without: set[int]
    ) -> None:
        assert set(table) == set(ours)
        assert set(table.values()) == set(theirs.values()) - {0} - without

    @pytest.mark.parametrize(
        ("theirs", "table", "ours"),
        [
            (wire.LeaseDirective, convert.LEASE_DIRECTIVES, LeaseDirective),
            (wire.WorkerDirective, convert.WORKER_DIRECTIVES, WorkerDirective),
            (wire.ReportStatus, convert.REPORT_STATUSES, ReportStatus),
        ],
    )
    def test_each_member_that_is_received_has_its_place(
        self, theirs: Any, table: dict[int, Any], ours: type[Enum]
    ) -> None:
        assert set(table) == set(theirs.values())
        assert set(table.values()) == set(ours)


class TestResult:
    def report(self, result: outcome.Result) -> wire.OperationResult:
        return convert.operation_result(
            Report(report_id="r", lease_id="l", child_job_id="c", attempt=2, result=result)
        )

    def test_a_verdict_travels_with_completed_alone(self) -> None:
        verdict = outcome.Verdict.EFFECTIVE
        completed = self.report(outcome.Result(outcome=outcome.Outcome.COMPLETED, verdict=verdict))
        skipped = self.report(outcome.Result(outcome=outcome.Outcome.SKIPPED, verdict=verdict))

        assert completed.verdict == job_pb2.VERDICT_EFFECTIVE
        assert skipped.verdict == job_pb2.VERDICT_UNSPECIFIED

    def test_a_release_has_its_reason_and_its_delay(self) -> None:
        message = self.report(
            outcome.Result(
                outcome=outcome.Outcome.RELEASED,
                release=outcome.ReleaseReason.TARGET_BUSY,
                retry_after=timedelta(seconds=2),
            )
        )

        assert message.released == wire.RELEASE_REASON_TARGET_BUSY
        assert message.retry_after.seconds == 2

    def test_who_waited_travels_whole(self) -> None:
        waiter = LockWaiter(application="a", user="u", object="t", lock_mode="m", seconds=1.5, sessions=2)

        [found] = self.report(outcome.Result(outcome=outcome.Outcome.COMPLETED, waiters=(waiter,))).lock_waiters

        assert (found.application, found.user, found.object, found.lock_mode) == ("a", "u", "t", "m")
        assert (found.seconds, found.sessions) == (1.5, 2)

    def test_a_lease_keeps_what_is_unset_unset(self) -> None:
        whole, part = convert.leases([wire.Lease(), wire.Lease(object="t", timeout=Duration(seconds=3))])

        assert (whole.operation.object, whole.operation.timeout) == (None, None)
        assert (part.operation.object, part.operation.timeout) == ("t", timedelta(seconds=3))


def refused(code: grpc.StatusCode, reason: str = "", **metadata: str) -> grpc.aio.AioRpcError:
    details = []
    if reason:
        packed = any_pb2.Any()
        packed.Pack(error_details_pb2.ErrorInfo(domain="overhaul.v1", reason=reason, metadata=metadata))
        details.append(packed)
    status = rpc_status.to_status(status_pb2.Status(code=code.value[0], message="no", details=details))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*status.trailing_metadata), "no")


class TestErrors:
    @pytest.mark.parametrize(
        ("reason", "error"),
        [
            ("SESSION_UNKNOWN", errors.SessionUnknownError),
            ("SESSION_SUPERSEDED", errors.SessionSupersededError),
            ("TARGET_IDENTITY_MISMATCH", errors.RegistrationRefusedError),
            ("PROTOCOL_VERSION_UNSUPPORTED", errors.ProtocolVersionRefusedError),
            ("LOG_GAP", errors.LogGapError),
        ],
    )
    def test_a_reason_is_an_error_of_ours(self, reason: str, error: type[Exception]) -> None:
        assert f"ERROR_REASON_{reason}" in error_reason_pb2.ErrorReason.keys()  # noqa: SIM118 - not a dict
        assert type(translate(refused(grpc.StatusCode.FAILED_PRECONDITION, reason))) is error

    @pytest.mark.parametrize("code", list(grpc.StatusCode))
    def test_every_code_has_its_place(self, code: grpc.StatusCode) -> None:
        assert isinstance(translate(refused(code)), errors.ManagerError)

    @pytest.mark.parametrize("reason", error_reason_pb2.ErrorReason.keys())
    def test_every_reason_has_its_place(self, reason: str) -> None:
        error = translate(refused(grpc.StatusCode.UNAVAILABLE, reason.removeprefix("ERROR_REASON_")))

        assert isinstance(error, errors.ManagerError)

    def test_a_gap_says_where_to_go_on(self) -> None:
        error = translate(refused(grpc.StatusCode.FAILED_PRECONDITION, "LOG_GAP", next_offset="7"))

        assert isinstance(error, errors.LogGapError)
        assert error.next_offset == 7

    def test_details_that_contradict_the_code_are_passed_over(self) -> None:
        broken = refused(grpc.StatusCode.UNAVAILABLE, "SESSION_UNKNOWN")
        error = grpc.aio.AioRpcError(
            grpc.StatusCode.INTERNAL, grpc.aio.Metadata(), broken.trailing_metadata(), "no"
        )

        assert isinstance(translate(error), errors.ManagerUnavailableError)

    async def test_a_message_that_is_too_large_is_refused_for_good(self) -> None:
        server = grpc.aio.server()
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        options = [("grpc.max_send_message_length", 10)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary("/x/y")(b"more than ten bytes")  # type: ignore[arg-type]  # without types of its own
        await server.stop(None)

        error = translate(caught.value)

        assert isinstance(error, errors.RequestRefusedError)
        assert "larger than max" in str(error)


class TestAddress:
    @pytest.mark.parametrize(
        ("text", "address"),
        [
            ("localhost:1", "localhost:1"),
            ("manager", "manager:7420"),
            ("::1", "[::1]:7420"),
            ("[::1]:5", "[::1]:5"),
            ("10.0.0.1, 10.0.0.2:5", "ipv4:10.0.0.1:7420,10.0.0.2:5"),
            ("dns:///m:5", "dns:///m:5"),
            ("unix:/tmp/x", "unix:/tmp/x"),
        ],
    )
    def test_its_forms(self, text: str, address: str) -> None:
        assert address_of(text) == address

    @pytest.mark.parametrize(
        "text",
        [
            *("", ":5", "host:port", "host:0", "host:70000", "a:1,b:2", "10.0.0.1,::1"),
            *("http://host:7420", "http://host", "host/path", "user@host:1", "a host:1", "a:b:80", "[::1"),
        ],
    )
    def test_other_forms_are_refused(self, text: str) -> None:
        with pytest.raises(errors.ConfigurationError):
            address_of(text)

    @pytest.mark.parametrize("text", ["10.0.0.1,10.0.0.2", "managers", "dns:///managers:1"])
    def test_the_health_of_several_managers_is_asked_for(self, text: str) -> None:
        config = json.loads(service_config(address_of(text)))

        assert (
            config["healthCheckConfig"]["serviceName"]
            == wire.DESCRIPTOR.services_by_name["LeaseService"].full_name
        )
        assert config["loadBalancingConfig"] == [{"round_robin": {}}]

    @pytest.mark.parametrize("text", ["127.0.0.1", "localhost:1", "10.0.0.1", "[::1]:1", "unix:/tmp/x"])
    def test_of_a_single_one_it_is_not(self, text: str) -> None:
        assert "healthCheckConfig" not in json.loads(service_config(address_of(text)))

    async def test_a_socket_is_an_address_too(self) -> None:
        await connect("unix:/tmp/none").close()
        await connect("manager:1").close()
