import ipaddress

from manager_service.config.settings import Settings
from manager_service.config.spans import show_span
from manager_service.domain.fleet import Timing
from manager_service.domain.model import MILLISECOND

_LAST_PORT = 65_535


class InvalidSettingsError(Exception):
    """The settings do not go together; its text is a sentence for the operator."""


def verify(settings: Settings) -> None:
    """Check that the settings go together; raise ``InvalidSettingsError``."""
    if not is_loopback(settings.listen) and not settings.insecure:
        raise InvalidSettingsError(
            f"{settings.listen} can be reached from other machines, and this manager speaks plaintext: anyone who "
            "reaches it may steer it. Listen on 127.0.0.1, or add --insecure"
        )
    if settings.retention < 0:
        raise InvalidSettingsError("retention must not be negative")
    if settings.store_wait < 0:
        raise InvalidSettingsError("store-wait must not be negative; 0s tries once")
    _verify_timing(settings.timing)


def _verify_timing(timing: Timing) -> None:
    beat = timing.heartbeat_interval
    least = {
        "heartbeat-interval": (timing.heartbeat_interval, 10 * MILLISECOND),
        "lease-duration": (timing.lease_duration, 3 * beat),
        "accept-within": (timing.accept_within, 2 * beat),
        "poll-window": (timing.poll_window, 10 * MILLISECOND),
    }
    for name, (value, minimum) in least.items():
        if value < minimum:
            raise InvalidSettingsError(f"{name} is {show_span(value)}; it must be at least {show_span(minimum)}")


def is_loopback(address: str) -> bool:
    """Tell whether only this machine can reach an address.

    Raises:
        InvalidSettingsError: the address is not of the form HOST:PORT or unix:PATH.
    """
    if address.startswith("unix:"):
        return True
    host, _, port = address.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not bare or not port.isdecimal() or int(port) > _LAST_PORT or (":" in bare and bare == host):
        raise InvalidSettingsError(f"{address!r} is not an address to listen on; write HOST:PORT")
    if bare == "localhost":
        return True
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return False
