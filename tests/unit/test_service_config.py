"""What the contract's service config says of each method: a call that may be repeated is, others have a reason."""

import json
from importlib.resources import files
from typing import Any

import pytest
from google.protobuf.descriptor import MethodDescriptor

from overhaul.v1 import fleet_service_pb2, job_service_pb2, lease_service_pb2

METHODS = [
    method
    for module in (job_service_pb2, lease_service_pb2, fleet_service_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
REPEATED_BY_THE_CALLER = {
    # They resume after what came already.
    "WatchParentJob",
    "ReadLogs",
    # The worker sends the next beat at once instead, with the leases it holds by then.
    "Heartbeat",
    # The worker polls on for as long as it takes.
    "AcquireLeases",
}
CONFIG = json.loads((files("overhaul.v1") / "service_config.json").read_text("utf-8"))


def config_of(method: MethodDescriptor) -> dict[str, Any]:
    """Return what gRPC finds for a method: an entry of its own comes before its service's."""
    service = method.containing_service.full_name
    for name in ({"service": service, "method": method.name}, {"service": service}):
        for entry in CONFIG["methodConfig"]:
            if name in entry["name"]:
                return dict(entry)
    raise AssertionError(f"{method.full_name} has no entry")


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
class TestEachMethod:
    def test_it_is_repeated_when_a_manager_is_unavailable_or_its_caller_does_so(
        self, method: MethodDescriptor
    ) -> None:
        policy = config_of(method).get("retryPolicy")

        assert (policy is None) == (method.name in REPEATED_BY_THE_CALLER)
        assert policy is None or set(policy["retryableStatusCodes"]) == {"UNAVAILABLE", "RESOURCE_EXHAUSTED"}

    def test_it_has_a_deadline_unless_it_is_a_stream(self, method: MethodDescriptor) -> None:
        assert ("timeout" in config_of(method)) != method.server_streaming


def test_calls_go_to_every_healthy_manager_in_turn() -> None:
    assert CONFIG["loadBalancingConfig"] == [{"round_robin": {}}]
    assert CONFIG["healthCheckConfig"] == {"serviceName": ""}
