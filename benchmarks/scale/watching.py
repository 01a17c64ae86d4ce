"""Many who watch over a few connections: `python -m benchmarks.scale.watching ADDRESS NUMBER PARENT_JOB_ID...`."""

import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress

import grpc

from overhaul.v1 import job_service_pb2 as jobs
from overhaul.v1 import job_service_pb2_grpc as jobs_grpc

_CHANNELS = 8
# More than about a thousand calls at once are refused.
_AT_ONCE = 200


class Watching:
    """Watches, and counts what it hears."""

    def __init__(self) -> None:
        self.messages = self.events = 0

    async def follow(self, client: jobs_grpc.JobServiceStub, parent: str, begun: asyncio.Event) -> None:
        """Watch a parent job to its end."""
        with suppress(grpc.aio.AioRpcError):
            request = jobs.WatchParentJobRequest(parent_job_id=parent, several_events=True)
            async for update in client.WatchParentJob(request):
                begun.set()
                self.messages += 1
                self.events += len(update.events.events) or 1
        begun.set()


async def watch(address: str, number: int, parents: Sequence[str]) -> None:
    """Watch until told to end; say on the last line of stderr what came after the first messages."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    watching = Watching()
    async with AsyncExitStack() as stack:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(address, options=options))
            for _ in range(_CHANNELS)
        ]
        clients = [jobs_grpc.JobServiceStub(channel) for channel in channels]
        tasks = []
        for first in range(0, number, _AT_ONCE):
            begun = [asyncio.Event() for _ in range(first, min(first + _AT_ONCE, number))]
            for place, event in enumerate(begun, first):
                follow = watching.follow(clients[place % _CHANNELS], parents[place % len(parents)], event)
                tasks.append(asyncio.create_task(follow))
            await asyncio.gather(*(event.wait() for event in begun))
        print(json.dumps({"watching": len(tasks)}), flush=True)
        before = watching.messages, watching.events
        await ended.wait()
        heard = {"messages": watching.messages - before[0], "events": watching.events - before[1]}
        print(json.dumps(heard), file=sys.stderr, flush=True)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(watch(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
