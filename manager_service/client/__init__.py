"""The far side of the wire: `ManagerClient` for Python, the `overhaul` program for people."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from manager_service.client.client import ManagerClient
    from manager_service.client.errors import ClientError
    from manager_service.client.request import JobRequest, Operation

__all__ = ["ClientError", "JobRequest", "ManagerClient", "Operation"]

_HOMES = {"ManagerClient": "client", "ClientError": "errors", "JobRequest": "request", "Operation": "request"}


def __getattr__(name: str) -> Any:
    # Loaded on first use: `overhaul --help` must not wait for gRPC.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
