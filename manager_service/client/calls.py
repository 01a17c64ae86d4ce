"""One call and what is done about its failures."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import grpc

from manager_service.client.errors import client_error

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")

CANCELLED_TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Waits that double from `first` to `longest` seconds, jittered so that clients do not come all at once."""

    first: float = 0.1
    longest: float = 3.0

    def seconds(self, failures: int) -> float:
        """Return how long to wait after so many failures in a row, from 1."""
        full = min(self.longest, self.first * 2.0 ** min(failures - 1, 16))
        return full * random.uniform(0.5, 1.0)  # noqa: S311 - jitter needs no secrecy


BACKOFF = Backoff()


class Caller:
    """Carries out calls to the managers at one address.

    The service config retries UNAVAILABLE and RESOURCE_EXHAUSTED inside gRPC. A server that drops a call when
    very many arrive at once says CANCELLED, which no service config may retry: that is done here.
    """

    def __init__(self, address: str) -> None:
        self._address = address

    async def call(
        self, method: grpc.aio.UnaryUnaryMultiCallable[RequestT, ResponseT], request: RequestT
    ) -> ResponseT:
        """Make a unary call.

        Raises:
            ClientError: it did not end with OK.
        """
        failures = 0
        while True:
            try:
                return await method(request)
            except grpc.aio.AioRpcError as error:
                failures += 1
                if error.code() is not grpc.StatusCode.CANCELLED or failures == CANCELLED_TRIES:
                    raise client_error(error, self._address) from error
            await asyncio.sleep(BACKOFF.seconds(failures))

    async def stream(
        self, method: grpc.aio.UnaryStreamMultiCallable[RequestT, ResponseT], request: RequestT
    ) -> AsyncGenerator[ResponseT, None]:
        """Make a streaming call; leaving the iterator cancels it, which dropping it alone would not.

        Raises:
            ClientError: it did not end with OK.
        """
        call = method(request)
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            raise client_error(error, self._address) from error
        finally:
            call.cancel()


class Page(Protocol):
    """An answer of a list method."""

    @property
    def next_page_token(self) -> str:
        """The token of the next page; empty: this is the last."""


PageT = TypeVar("PageT", bound=Page)


async def pages(read: Callable[[str], Awaitable[PageT]]) -> AsyncIterator[PageT]:
    """Yield the pages that `read` answers for a page token, from the first to the last."""
    token = ""
    while True:
        page = await read(token)
        yield page
        token = page.next_page_token
        if not token:
            return
