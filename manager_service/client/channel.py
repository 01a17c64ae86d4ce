"""How a channel to the managers is opened: the address, the service config, the limits."""

import ipaddress
import json
import re
from importlib.resources import files

import grpc

from manager_service.client.errors import InvalidAddressError

DEFAULT_PORT = 7420
DEFAULT_ADDRESS = f"127.0.0.1:{DEFAULT_PORT}"
MESSAGE_BYTES = 32 * 1024 * 1024
HEALTH_OF = "overhaul.v1.JobService"
"""Which service of a manager has to be healthy for calls to go there."""
_FORMS_OF_GRPC = ("dns:", "unix:", "ipv4:", "ipv6:")
_IN_NO_HOST = re.compile(r"[\s/@?#\[\]]")


def open_channel(address: str) -> grpc.aio.Channel:
    """Open a channel; it connects with the first call.

    Raises:
        InvalidAddressError: the address is none of the forms that `channel_target` reads.
    """
    return grpc.aio.insecure_channel(channel_target(address), options=channel_options(address))


def channel_target(address: str) -> str:
    """Turn `host[:port]`, `ip:port,ip:port` or a URI such as `dns:///name:port` into what gRPC resolves."""
    if address.startswith(_FORMS_OF_GRPC):
        return address
    endpoints = [_endpoint(part.strip()) for part in address.split(",")]
    if len(endpoints) == 1:
        return _joined(*endpoints[0])
    versions = {_ip_version(host) for host, _ in endpoints}
    if len(versions) != 1 or None in versions:
        raise InvalidAddressError(
            f"{address!r}: a list of managers takes addresses of one kind (all IPv4 or all IPv6);"
            " for names use dns:///name:port"
        )
    return f"ipv{versions.pop()}:" + ",".join(_joined(*endpoint) for endpoint in endpoints)


def channel_options(address: str) -> list[tuple[str, str | int]]:
    """Return the options of a channel to the address; the retries come from the contract's service config."""
    return [
        ("grpc.service_config", service_config(channel_target(address))),
        ("grpc.enable_retries", 1),
        ("grpc.max_receive_message_length", MESSAGE_BYTES),
        ("grpc.max_send_message_length", MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        # A manager that restarts is back within a second or two; the default would wait for up to two minutes.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 3_000),
        # Managers that were replaced all at once are found at their new addresses within a second, not thirty.
        ("grpc.dns_min_time_between_resolutions_ms", 1_000),
        # A proxy of the environment must not be asked for this very machine.
        ("grpc.enable_http_proxy", 0 if _is_loopback(address) else 1),
    ]


def service_config(target: str) -> str:
    """Return the contract's deadlines, retries and health check as gRPC reads them.

    Where there is only one manager its health is not asked for: there is no other to go to, and without the
    question the first call is sooner on its way.
    """
    config = json.loads(files("overhaul.v1").joinpath("service_config.json").read_text("utf-8"))
    if _is_one_manager(target):
        del config["healthCheckConfig"]
    else:
        config["healthCheckConfig"]["serviceName"] = HEALTH_OF
    return json.dumps(config)


def _is_one_manager(target: str) -> bool:
    """Tell whether no more than one manager can be meant; a name may stand for several."""
    host = target.removeprefix("ipv4:").removeprefix("ipv6:").rpartition(":")[0].strip("[]")
    return target.startswith("unix:") or host == "localhost" or _ip_version(host) is not None


def _endpoint(text: str) -> tuple[str, int]:
    """Split an endpoint; brackets around an IPv6 address are taken off."""
    if _ip_version(text) == 6:  # noqa: PLR2004 - the version of the protocol
        return text, DEFAULT_PORT
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(DEFAULT_PORT)
    host = host.removeprefix("[").removesuffix("]")
    if not _is_host(host) or not port.isdecimal() or not 0 < int(port) < 65_536:  # noqa: PLR2004 - the range of ports
        raise InvalidAddressError(f"{text!r} is not an address of a manager; write host:port")
    return host, int(port)


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_host(text: str) -> bool:
    """Tell whether the text may be a host's name or address; a URL is none."""
    return bool(text) and not _IN_NO_HOST.search(text) and (":" not in text or _ip_version(text) is not None)


def _ip_version(host: str) -> int | None:
    try:
        return ipaddress.ip_address(host).version
    except ValueError:
        return None


def _is_loopback(address: str) -> bool:
    return address.startswith(("127.", "localhost", "[::1]", "::1", "unix:", "ipv4:127.", "ipv6:[::1]"))
