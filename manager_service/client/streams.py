"""The streams of JobService, which go on by themselves after a broken connection or a manager's restart."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing

import grpc

from manager_service.client.calls import BACKOFF, Backoff, Caller
from manager_service.client.errors import ClientError
from overhaul.v1 import job_service_pb2, job_service_pb2_grpc

GIVE_UP_AFTER = 300.0
RESUMABLE = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        # What a reset of the stream looks like from here; a manager's own defect carries a reason.
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)
WITHOUT_REASON = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN})


class Patience:
    """Decides whether and when a stream is opened again: with backoff, for `give_up_after` seconds of silence.

    `on_trouble` is called once for each silence that is waited out.
    """

    def __init__(
        self,
        give_up_after: float,
        backoff: Backoff = BACKOFF,
        on_trouble: Callable[[ClientError], None] | None = None,
    ) -> None:
        self._give_up_after = give_up_after
        self._backoff = backoff
        self._on_trouble = on_trouble
        self._failures = 0
        self._silent_since = time.monotonic()

    def heard(self) -> None:
        """Note that something came."""
        self._failures = 0

    async def wait(self, error: ClientError) -> None:
        """Wait before the next try; raise the error where another try is useless or too late."""
        now = time.monotonic()
        if self._failures == 0:
            self._silent_since = now
        self._failures += 1
        if not _resumable(error) or now - self._silent_since >= self._give_up_after:
            raise error
        if self._failures == 1 and self._on_trouble is not None:
            self._on_trouble(error)
        await asyncio.sleep(self._backoff.seconds(self._failures))


class Streams:
    """Follows parent jobs and logs."""

    def __init__(self, caller: Caller, stub: job_service_pb2_grpc.JobServiceStub) -> None:
        self._caller = caller
        self._jobs = stub

    async def watch_parent_job(
        self,
        parent_job_id: str,
        *,
        after_sequence: int | None = None,
        give_up_after: float = GIVE_UP_AFTER,
        on_trouble: Callable[[ClientError], None] | None = None,
    ) -> AsyncGenerator[job_service_pb2.WatchParentJobResponse, None]:
        """Yield a snapshot (without `after_sequence`), then every later event once and in order.

        It ends after the final state. A broken stream is resumed after the last sequence; a snapshot marked
        `resynced` says that events in between are gone. `on_trouble` hears of each outage that is waited out.
        Close it (`contextlib.aclosing`) when leaving early.

        Raises:
            ClientError: refused, or nothing could be reached for `give_up_after` seconds.
        """
        patience, last = Patience(give_up_after, on_trouble=on_trouble), after_sequence
        while True:
            request = job_service_pb2.WatchParentJobRequest(
                parent_job_id=parent_job_id, after_sequence=last, several_events=True
            )
            try:
                async with aclosing(self._caller.stream(self._jobs.WatchParentJob, request)) as updates:
                    async for update in updates:
                        patience.heard()
                        for single in _singly(update):
                            if _is_news(single, last):
                                last = _sequence(single, last)
                                yield single
            except ClientError as error:
                await patience.wait(error)
            else:
                return

    async def read_logs(
        self,
        child_job_id: str,
        *,
        attempt: int = 0,
        offset: int = 0,
        follow: bool = False,
        give_up_after: float = GIVE_UP_AFTER,
    ) -> AsyncGenerator[job_service_pb2.ReadLogsResponse, None]:
        """Yield the log of an attempt (0: the newest) from an offset on; `follow` goes on until the attempt ends.

        A broken stream is resumed after the last entry, on the attempt it began with.

        Raises:
            ClientError: refused, or nothing could be reached for `give_up_after` seconds.
        """
        patience = Patience(give_up_after)
        while True:
            request = job_service_pb2.ReadLogsRequest(
                child_job_id=child_job_id, attempt=attempt, offset=offset, follow=follow
            )
            try:
                async with aclosing(self._caller.stream(self._jobs.ReadLogs, request)) as chunks:
                    async for chunk in chunks:
                        patience.heard()
                        attempt, offset = chunk.attempt, chunk.offset + len(chunk.entries)
                        yield chunk
            except ClientError as error:
                await patience.wait(error)
            else:
                return


def _singly(update: job_service_pb2.WatchParentJobResponse) -> Iterable[job_service_pb2.WatchParentJobResponse]:
    """Take several events apart, so that whoever reads sees one at a time."""
    if update.WhichOneof("update") != "events":
        return (update,)
    return (job_service_pb2.WatchParentJobResponse(event=event) for event in update.events.events)


def _is_news(update: job_service_pb2.WatchParentJobResponse, last: int | None) -> bool:
    return last is None or update.WhichOneof("update") != "event" or update.event.sequence > last


def _sequence(update: job_service_pb2.WatchParentJobResponse, last: int | None) -> int | None:
    match update.WhichOneof("update"):
        case "snapshot":
            return update.snapshot.parent_job.sequence
        case "event":
            return update.event.sequence
        case _:
            return last


def _resumable(error: ClientError) -> bool:
    return error.code in RESUMABLE and not (error.code in WITHOUT_REASON and error.reason)
