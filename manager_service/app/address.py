import errno
import socket

from manager_service.api.server import AddressInUseError

_REFUSALS = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES})


def check_address(address: str) -> None:
    """Refuse an address that cannot be bound before a store is made for nothing; the server binds it for good.

    Raises:
        AddressInUseError: none of what HOST:PORT stands for can be bound.
    """
    if address.startswith("unix:"):
        return
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.removeprefix("[").removesuffix("]"), port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise AddressInUseError(address) from error
    if not any(_may_be_bound(family, place) for family, *_, place in found):
        raise AddressInUseError(address)


def _may_be_bound(family: int, place: tuple[object, ...]) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As the server does: what an earlier process has left in TIME_WAIT is no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        return error.errno not in _REFUSALS
    return True
