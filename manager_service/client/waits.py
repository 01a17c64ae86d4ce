"""Tells why nothing of a job runs, which a watch does not: to wait is no event."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from manager_service.client.client import ManagerClient
from manager_service.client.errors import ClientError
from manager_service.client.views import View
from manager_service.client.words import place, waits_for
from overhaul.v1 import job_pb2

LOOK_EVERY = 2.0
"""Seconds: what waits for less is not worth a line."""


@asynccontextmanager
async def telling_waits(
    client: ManagerClient, parent_job_id: str, waits: Callable[[], bool], view: View
) -> AsyncIterator[None]:
    """Meanwhile show why the first child waits whenever ``waits`` says that nothing runs; once for each reason."""
    telling = asyncio.ensure_future(_tell(client, parent_job_id, waits, view))
    try:
        yield
    finally:
        telling.cancel()
        await asyncio.wait({telling})


async def _tell(client: ManagerClient, parent_job_id: str, waits: Callable[[], bool], view: View) -> None:
    told = ""
    while True:
        await asyncio.sleep(LOOK_EVERY)
        reason = await _reason(client, parent_job_id) if waits() else ""
        # A number in it may change with every look.
        kind = re.sub(r"\d+", "", reason)
        if reason and kind != told:
            view.say(f"waiting: {reason}")
        told = kind


async def _reason(client: ManagerClient, parent_job_id: str) -> str:
    pending = [job_pb2.CHILD_JOB_STATE_PENDING]
    # Of a manager that cannot be reached the watch tells.
    with suppress(ClientError):
        async for child in client.list_child_jobs(parent_job_id, states=pending, page_size=1):
            reason = waits_for(child)
            detail = f": {child.wait_detail}" if child.wait_detail else ""
            return f"{child.operation} {place(child)}: {reason}{detail}" if reason else ""
    return ""
