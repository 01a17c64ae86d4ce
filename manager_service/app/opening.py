"""Open the job store, and wait for a database that is away when the manager starts."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import structlog

from manager_service.config import show_span
from manager_service.domain.errors import StoreUnavailableError
from manager_service.domain.model import SECOND, Span
from manager_service.domain.ports import JobStore

log = structlog.get_logger("manager.process")

_PAUSE = 0.5


async def wait_for_store(
    open_it: Callable[[], JobStore], *, patience: Span, stopped: Callable[[], Coroutine[Any, Any, None]]
) -> JobStore | None:
    """Open a store, again and again while it cannot be reached; return ``None`` when the manager is to end.

    Args:
        open_it: opens it; called in a thread, because it may hang for as long as a connection may take.
        patience: for how long it is tried again.
        stopped: waits until the manager is to end.

    Raises:
        StoreUnavailableError: it could not be reached in all that time.
        ManagerError: it was reached, but this manager cannot have it.
    """
    until = time.monotonic() + patience / SECOND
    stop: asyncio.Future[Any] = asyncio.ensure_future(stopped())
    told = ""
    try:
        while True:
            opening = _in_thread(open_it)
            either: set[asyncio.Future[Any]] = {opening, stop}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not opening.done():
                opening.cancel()
                return None
            try:
                return opening.result()
            except StoreUnavailableError as error:
                if time.monotonic() >= until:
                    waited = f"; it was waited for {show_span(patience)} (--store-wait)" if patience else ""
                    raise StoreUnavailableError(f"{error.why}{waited}") from error
                if error.why != told:
                    log.warning("waiting for the job store", why=error.why, seconds=patience / SECOND)
                told = error.why
            if (await asyncio.wait({stop}, timeout=_PAUSE))[0]:
                return None
    finally:
        stop.cancel()


def _in_thread(open_it: Callable[[], JobStore]) -> asyncio.Future[JobStore]:
    """Open a store in a thread of which the end of the process does not wait."""
    loop = asyncio.get_running_loop()
    opening: asyncio.Future[JobStore] = loop.create_future()

    def put(give: Callable[[Any], None], value: object) -> None:
        if not opening.done():  # nobody waits any more
            give(value)

    def deliver(give: Callable[[Any], None], value: object) -> None:
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(put, give, value)

    def run() -> None:
        try:
            store = open_it()
        except BaseException as error:  # noqa: BLE001 -- whoever waits gets it
            deliver(opening.set_exception, error)
        else:
            deliver(opening.set_result, store)

    threading.Thread(target=run, name="store-opening", daemon=True).start()
    return opening
