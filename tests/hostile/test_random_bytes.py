"""Whatever bytes come as a message, the answer is a clean status, and the manager goes on."""

import os
from collections.abc import Sequence
from functools import partial

import grpc
import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overhaul.v1 import job_pb2 as job
from overhaul.v1 import job_service_pb2 as jobs
from overhaul.v1 import lease_service_pb2 as leases
from tests.hostile.messages import messages
from tests.hostile.wire import BY_NAME, METHODS, Method, Wire, as_it_is, assert_clean, assert_refused
from tests.services import Service, address_of

ROUNDS = int(os.environ.get("OVERHAUL_BATTERY_ROUNDS", "1"))
# One round is the same each time; further ones look elsewhere.
hostile = partial(
    settings,
    deadline=None,
    derandomize=ROUNDS == 1,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
INSTANCE = "018f0000-0000-7000-8000-000000000001"


@pytest.fixture(scope="module")
def known(manager: Service) -> Sequence[str]:
    """Make a parent job, a session and a lease, whose ids are then used where they belong and where not."""
    with grpc.insecure_channel(address_of(manager)) as channel:

        def call(name: str, request: Message) -> bytes:
            send = channel.unary_unary(BY_NAME[name].path, as_it_is, as_it_is)
            return send(request.SerializeToString(), timeout=10)

        offers = [
            leases.OfferedOperation(name=name, locks=[leases.Lock(key="k")]) for name in ("vacuum", "analyze")
        ]
        target = leases.ServedTarget(name="app", engine="sqlite", identity="i", operations=offers)
        register = leases.RegisterWorkerRequest(
            worker_name="w", instance_id=INSTANCE, protocol_version=1, slots=4, targets=[target]
        )
        session = leases.RegisterWorkerResponse.FromString(call("RegisterWorker", register)).session_id
        create = jobs.CreateParentJobRequest(
            targets=["app"], operations=[job.OperationSpec(name=name) for name in ("vacuum", "analyze")]
        )
        parent = jobs.CreateParentJobResponse.FromString(call("CreateParentJob", create)).parent_job.id
        poll = leases.AcquireLeasesRequest(session_id=session, poll_sequence=1, max_leases=1)
        [lease] = leases.AcquireLeasesResponse.FromString(call("AcquireLeases", poll)).leases
    return (session, parent, lease.child_job_id, lease.lease_id, INSTANCE)


class TestBytes:
    @hostile(max_examples=150 * ROUNDS)
    @given(method=st.sampled_from(METHODS), data=st.binary(max_size=300))
    def test_random_bytes_are_answered_cleanly(self, wire: Wire, method: Method, data: bytes) -> None:
        assert_clean(wire.send(method, data), data)

    @hostile(max_examples=150 * ROUNDS)
    @given(data=st.data(), method=st.sampled_from(METHODS))
    def test_damaged_messages_are_answered_cleanly(
        self, wire: Wire, known: Sequence[str], method: Method, data: st.DataObject
    ) -> None:
        body = bytearray(data.draw(messages(method.request, known)).SerializeToString())
        for _ in range(data.draw(st.integers(1, 4))):
            if body:
                body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
        cut = data.draw(st.integers(0, len(body)))

        sent = bytes(body[: cut or len(body)])
        assert_clean(wire.send(method, sent), sent)

    @pytest.mark.parametrize("method", METHODS, ids=str)
    def test_what_is_no_message_is_an_invalid_request(self, wire: Wire, method: Method) -> None:
        assert_refused(wire.send(method, b"\xff\xff\xff"), "INVALID_REQUEST", "request")

    @pytest.mark.parametrize("method", ["GetParentJob", "WatchParentJob", "DrainWorker", "DeregisterWorker"])
    def test_text_that_is_not_utf8_is_an_invalid_request(self, wire: Wire, method: str) -> None:
        assert_refused(wire.send(BY_NAME[method], b"\x0a\x02\xff\xfe"), "INVALID_REQUEST", "request")

    @pytest.mark.parametrize(
        "path",
        ["/overhaul.v1.JobService/Nothing", "/overhaul.v1.None/GetParentJob", "/", "/overhaul.v1.JobService/"],
    )
    def test_a_method_that_there_is_not_is_unimplemented(self, wire: Wire, path: str) -> None:
        assert wire.unknown(path) is grpc.StatusCode.UNIMPLEMENTED


class TestMessages:
    @hostile(max_examples=400 * ROUNDS)
    @given(data=st.data(), method=st.sampled_from(METHODS))
    def test_messages_that_make_no_sense_are_answered_cleanly(
        self, wire: Wire, known: Sequence[str], method: Method, data: st.DataObject
    ) -> None:
        message = data.draw(messages(method.request, known))

        sent = message.SerializeToString()
        assert_clean(wire.send(method, sent), sent)
