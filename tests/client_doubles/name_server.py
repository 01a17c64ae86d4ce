"""A DNS server on loopback whose only name stands for whatever addresses a test says."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from typing_extensions import override

_HEADER = struct.Struct(">HHHHHH")
_ANSWERED, _IPV4, _INTERNET, _SECONDS = 0x8180, 1, 1, 1


class NameServer(asyncio.DatagramProtocol):
    """Answers every question for IPv4 addresses with ``addresses``, and any other with none."""

    def __init__(self) -> None:
        self.addresses: list[str] = []

    @override
    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self.port: int = transport.get_extra_info("sockname")[1]

    @override
    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        question = data[_HEADER.size : data.index(b"\0", _HEADER.size) + 5]
        (kind,) = struct.unpack(">H", question[-4:-2])
        found = self.addresses if kind == _IPV4 else []
        (number,) = struct.unpack(">H", data[:2])
        answer = _HEADER.pack(number, _ANSWERED, 1, len(found), 0, 0) + question
        for address in found:
            # 0xC00C points back at the name that was asked for.
            answer += struct.pack(">HHHIH", 0xC00C, _IPV4, _INTERNET, _SECONDS, 4) + socket.inet_aton(address)
        self._transport.sendto(answer, addr)


@asynccontextmanager
async def name_server() -> AsyncIterator[NameServer]:
    """Run the server."""
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(NameServer, local_addr=("127.0.0.1", 0))
    try:
        yield server
    finally:
        transport.close()
