"""Follows a parent job into a view until its final state."""

from contextlib import aclosing

from manager_service.client.client import ManagerClient
from manager_service.client.errors import ClientError
from manager_service.client.streams import GIVE_UP_AFTER
from manager_service.client.views import View
from manager_service.client.waits import telling_waits
from manager_service.client.words import spoken
from overhaul.v1 import job_pb2, job_service_pb2


async def follow(client: ManagerClient, parent_job_id: str, view: View) -> job_pb2.ParentJob:
    """Show a parent job until it ended, and return it as it stands then.

    Raises:
        ClientError: there is no such job, or no manager could be reached any more.
    """
    shown = Standing()
    watch = client.watch_parent_job(parent_job_id, on_trouble=lambda error: view.say(trouble(error)))
    telling = telling_waits(client, parent_job_id, lambda: shown.waits, view)
    async with telling, aclosing(watch) as updates:
        async for update in updates:
            shown.take(update, view)
    return await client.get_parent_job(parent_job_id)


def trouble(error: ClientError) -> str:
    """Tell that a watch was broken off and goes on by itself: silence would look like long work."""
    return f"{error}; watching goes on when a manager answers within {GIVE_UP_AFTER / 60:.0f} minutes"


class Standing:
    """Keeps the children's counts up to date from the events between those that carry them."""

    def __init__(self) -> None:
        self._state = ""
        self._counts = job_pb2.ChildJobCounts()

    @property
    def waits(self) -> bool:
        """Whether children are left and none of them runs."""
        return self._counts.pending > 0 and self._counts.leased + self._counts.running == 0

    def take(self, update: job_service_pb2.WatchParentJobResponse, view: View) -> None:
        """Show one update."""
        match update.WhichOneof("update"):
            case "snapshot":
                parent = update.snapshot.parent_job
                self._state = spoken(parent, "state")
                self._counts.CopyFrom(parent.counts)
            case "event":
                self._event(update.event, view)
            case "progress":
                view.progress(update.progress)
        view.parent(self._state, self._counts)

    def _event(self, event: job_service_pb2.JobEvent, view: View) -> None:
        match event.WhichOneof("change"):
            case "child_job":
                self._move(event.child_job)
                view.child(event.child_job)
            case "parent_job":
                self._state = spoken(event.parent_job, "state") + (" (paused)" if event.parent_job.paused else "")
                self._counts.CopyFrom(event.parent_job.counts)
            case "bulk":
                self._counts.CopyFrom(event.bulk.counts)

    def _move(self, change: job_service_pb2.ChildJobChange) -> None:
        for field, step in (("previous_state", -1), ("state", 1)):
            state = spoken(change, field)
            if state:
                setattr(self._counts, state, getattr(self._counts, state) + step)
