"""A way to PostgreSQL on which the answer to a commit can be lost: the write happens, the caller sees an error."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.lodgings import HOST
from tests.postgres import PostgresServer

_CHUNK = 1 << 16
# How the server says that a transaction is over, and that a statement changed rows.
_COMMITTED = b"C\x00\x00\x00\x0bCOMMIT\x00"
_CHANGED = re.compile(rb"(?:INSERT 0|UPDATE|DELETE) [1-9]")
_OVERLAP = len(_COMMITTED)


class Severing:
    """Passes on what managers and PostgreSQL say to each other, and breaks off where it is asked to."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._connections: set[asyncio.Task[None]] = set()
        self._ordered = 0
        self.severed = 0
        self.port = 0

    def url(self, database: str) -> str:
        """Return the URL of a database of the server, as it is reached this way."""
        return self._server.url(database.rpartition("/")[2]).replace(f":{self._server.port}/", f":{self.port}/")

    def order(self, commits: int) -> None:
        """Let the answers to the next commits that wrote something be lost, with their connections."""
        self._ordered += commits

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Severing"]:
        listening = await asyncio.start_server(self._accept, HOST, 0)
        self.port = listening.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            listening.close()
            for connection in self._connections:
                connection.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._carry(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry a connection until either side, or an order, ends it."""
        writers = [writer]
        try:
            from_server, to_server = await asyncio.open_connection(HOST, self._server.port)
            writers.append(to_server)
            ways = [
                asyncio.create_task(_pass_on(reader, to_server)),
                asyncio.create_task(self._answer(from_server, writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except OSError:
            pass  # the server is away: the manager learns it by the end of its connection
        finally:
            for one in writers:
                one.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wrote, before = False, b""
        while data := await reader.read(_CHUNK):
            said = before + data
            wrote = wrote or _CHANGED.search(said) is not None
            if _COMMITTED in said:
                if wrote and self._ordered:
                    self._ordered -= 1
                    self.severed += 1
                    return
                wrote, said = False, b""
            before = said[-_OVERLAP:]
            writer.write(data)
            await writer.drain()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
