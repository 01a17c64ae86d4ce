"""Which addresses the client takes, and how its channels are set."""

import json

import pytest

from manager_service import client
from manager_service.api.server import SERVICES
from manager_service.client.calls import Backoff
from manager_service.client.channel import DEFAULT_ADDRESS, channel_options, channel_target
from manager_service.client.errors import InvalidAddressError
from manager_service.client.options import DEFAULT_MANAGER


class TestAddress:
    @pytest.mark.parametrize(
        ("address", "target"),
        [
            ("127.0.0.1:7420", "127.0.0.1:7420"),
            ("manager.example:80", "manager.example:80"),
            ("manager.example", "manager.example:7420"),
            ("[::1]:7420", "[::1]:7420"),
            ("[::1]", "[::1]:7420"),
            ("::1", "[::1]:7420"),
            ("10.0.0.1:7420,10.0.0.2", "ipv4:10.0.0.1:7420,10.0.0.2:7420"),
            ("[::1]:1, [::2]:2", "ipv6:[::1]:1,[::2]:2"),
            ("dns:///managers:7420", "dns:///managers:7420"),
            ("unix:/run/overhaul.sock", "unix:/run/overhaul.sock"),
        ],
    )
    def test_it_becomes_what_grpc_resolves(self, address: str, target: str) -> None:
        assert channel_target(address) == target

    @pytest.mark.parametrize(
        "address",
        [
            *("", "host:port", ":7420", "host:0", "host:70000", "a:1,b:2", "10.0.0.1,::1"),
            *("http://host:7420", "http://host", "host/path", "user@host:1", "a host:1", "a:b:80", "[::1"),
        ],
    )
    def test_others_are_refused(self, address: str) -> None:
        with pytest.raises(InvalidAddressError):
            channel_target(address)

    def test_the_command_line_and_the_client_have_one_default(self) -> None:
        assert DEFAULT_MANAGER == DEFAULT_ADDRESS


class TestOptions:
    def test_the_retries_are_those_of_the_contract(self) -> None:
        options = dict(channel_options("127.0.0.1:7420"))

        config = json.loads(str(options["grpc.service_config"]))
        assert config["methodConfig"][0]["retryPolicy"]["maxAttempts"] == 5
        assert options["grpc.max_receive_message_length"] == 32 * 1024 * 1024

    @pytest.mark.parametrize("address", ["10.0.0.1,10.0.0.2", "managers", "managers:1", "dns:///managers:1"])
    def test_the_health_of_several_managers_is_asked_for(self, address: str) -> None:
        config = json.loads(str(dict(channel_options(address))["grpc.service_config"]))

        assert config["healthCheckConfig"]["serviceName"] in SERVICES
        assert config["loadBalancingConfig"] == [{"round_robin": {}}]

    @pytest.mark.parametrize(
        "address", ["127.0.0.1:1", "localhost:1", "10.0.0.1", "[::1]:1", "ipv4:10.0.0.1:1", "unix:/run/o.sock"]
    )
    def test_of_a_single_one_it_is_not(self, address: str) -> None:
        config = json.loads(str(dict(channel_options(address))["grpc.service_config"]))

        assert "healthCheckConfig" not in config

    @pytest.mark.parametrize(("address", "proxied"), [("127.0.0.1:1", 0), ("[::1]:1", 0), ("db.example:1", 1)])
    def test_no_proxy_is_asked_for_this_machine(self, address: str, proxied: int) -> None:
        assert dict(channel_options(address))["grpc.enable_http_proxy"] == proxied


class TestBackoff:
    def test_it_doubles_up_to_the_longest_and_is_jittered(self) -> None:
        backoff = Backoff(first=1.0, longest=4.0)

        assert all(0.5 <= backoff.seconds(1) <= 1.0 for _ in range(50))
        assert all(2.0 <= backoff.seconds(1_000) <= 4.0 for _ in range(50))


class TestPackage:
    def test_its_names_are_loaded_on_first_use(self) -> None:
        assert client.ManagerClient.__name__ == "ManagerClient"
        with pytest.raises(AttributeError, match="Unknown"):
            client.Unknown  # noqa: B018 - the look-up is what is tested
