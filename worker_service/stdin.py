import asyncio
import os
import threading
from collections.abc import Callable

_STDIN = 0


class Lifeline:
    """Stdin as a child process uses it: a first line with the manager's address, and an end that means the end.

    A thread reads it, so that a blocked read holds nothing up.

    Args:
        on_end: called in the event loop when stdin has ended.
        descriptor: the file descriptor to read.
    """

    def __init__(self, on_end: Callable[[], None], descriptor: int = _STDIN) -> None:
        self._on_end = on_end
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._told = False
        self._first: asyncio.Future[str | None] = self._loop.create_future()
        threading.Thread(target=self._read, name="stdin", daemon=True).start()

    async def first_line(self) -> str | None:
        """Return the first line without its end; ``None`` when stdin ended before it was complete."""
        return await self._first

    def _read(self) -> None:
        head = b""
        while chunk := self._chunk():
            if self._told:
                continue
            head += chunk
            line, end, _ = head.partition(b"\n")
            if end:
                self._told = True
                self._tell(self._set_first, line.decode(errors="replace").strip())
        self._tell(self._set_first, None)
        self._tell(self._on_end)

    def _chunk(self) -> bytes:
        try:
            return os.read(self._descriptor, 65_536)
        except OSError:
            return b""

    def _set_first(self, line: str | None) -> None:
        if not self._first.done():
            self._first.set_result(line)

    def _tell(self, what: Callable[..., None], *arguments: str | None) -> None:
        try:
            self._loop.call_soon_threadsafe(what, *arguments)
        except RuntimeError:
            return  # the loop has ended before stdin did
