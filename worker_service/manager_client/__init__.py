"""The edge to the manager: the only place of the worker that knows gRPC and the contract's messages."""

from worker_service.manager_client.channel import address_of, connect
from worker_service.manager_client.client import GrpcManager

__all__ = ["GrpcManager", "address_of", "connect"]
