import ipaddress
import json
import re
from importlib.resources import files

import grpc

from worker_service.domain.errors import ConfigurationError

DEFAULT_PORT = 7420
MESSAGE_BYTES = 32 << 20
HEALTH_OF = "overhaul.v1.LeaseService"
"""Which service of a manager has to be healthy for calls to go there."""
_FOREIGN_FORMS = ("dns:", "unix:", "ipv4:", "ipv6:")
_IN_NO_HOST = re.compile(r"[\s/@?#\[\]]")
_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.enable_retries", 1),
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # gRPC's own reconnect backoff grows to two minutes; a restarted manager must be found within seconds.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Managers that were replaced all at once are found at their new addresses within a second, not thirty.
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
)


def address_of(text: str) -> str:
    """Return gRPC's form of a manager's address.

    ``HOST[:PORT]``, or several IP addresses separated by commas, which are used in turn and passed over while
    they are down or drain; gRPC's own forms (``dns:///...``, ``unix:...``) pass through.

    Raises:
        ConfigurationError: it is none of these.
    """
    if text.startswith(_FOREIGN_FORMS):
        return text
    endpoints = [_endpoint(part.strip()) for part in text.split(",")]
    joined = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in endpoints]
    if len(joined) == 1:
        return joined[0]
    versions = {_version(host) for host, _ in endpoints}
    if len(versions) != 1 or None in versions:
        raise ConfigurationError(
            f"Several managers ({text}) are named by IP addresses of one family, "
            "or by one DNS name as dns:///NAME:PORT."
        )
    return f"ipv{versions.pop()}:" + ",".join(joined)


def _endpoint(text: str) -> tuple[str, int]:
    if _version(text) == 6:  # noqa: PLR2004 - the version of the protocol
        return text, DEFAULT_PORT
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(DEFAULT_PORT)
    host = host.removeprefix("[").removesuffix("]")
    if not _is_host(host) or not port.isdecimal() or not 0 < int(port) < 65_536:  # noqa: PLR2004 - the range of ports
        raise ConfigurationError(f"The manager's address {text!r} is not of the form HOST:PORT.")
    return host, int(port)


def _is_host(text: str) -> bool:
    """Tell whether the text may be a host's name or address; a URL is none."""
    return bool(text) and not _IN_NO_HOST.search(text) and (":" not in text or _version(text) is not None)


def _version(host: str) -> int | None:
    try:
        return ipaddress.ip_address(host).version
    except ValueError:
        return None


def connect(address: str, *, own_connection: bool = False) -> grpc.aio.Channel:
    """Open a channel to the manager; it connects with the first call.

    Args:
        address: gRPC's form of the address.
        own_connection: share no connection with other channels to the same address.
    """
    options: list[tuple[str, int | str]] = [*_OPTIONS, ("grpc.service_config", service_config(address))]
    if own_connection:
        options.append(("grpc.use_local_subchannel_pool", 1))
    if address.startswith(("127.", "localhost:", "[::1]", "unix:", "ipv4:127.", "ipv6:[::1]")):
        # A proxy of the environment must not be asked for this very machine.
        options.append(("grpc.enable_http_proxy", 0))
    return grpc.aio.insecure_channel(address, options=options)


def service_config(address: str) -> str:
    """Return the contract's deadlines, retries and health check as gRPC reads them.

    Where there is only one manager its health is not asked for: there is no other to go to, and without the
    question the first call is sooner on its way.

    Args:
        address: gRPC's form of the address.
    """
    config = json.loads((files("overhaul.v1") / "service_config.json").read_text("utf-8"))
    if _is_one_manager(address):
        del config["healthCheckConfig"]
    else:
        config["healthCheckConfig"]["serviceName"] = HEALTH_OF
    return json.dumps(config)


def _is_one_manager(address: str) -> bool:
    """Tell whether no more than one manager can be meant; a name may stand for several."""
    host = address.removeprefix("ipv4:").removeprefix("ipv6:").rpartition(":")[0].strip("[]")
    return address.startswith("unix:") or host == "localhost" or _version(host) is not None
