"""The calls of JobService that are asked and answered once."""

from collections.abc import AsyncIterator, Mapping, Sequence

import uuid_utils

from manager_service.client.calls import Caller, pages
from manager_service.client.request import JobRequest
from overhaul.v1 import job_pb2, job_service_pb2, job_service_pb2_grpc

PAGE_SIZE = 500


class JobCalls:
    """Creates, reads and steers parent jobs. Every method may raise `ClientError`."""

    def __init__(self, caller: Caller, stub: job_service_pb2_grpc.JobServiceStub) -> None:
        self._caller = caller
        self._jobs = stub

    async def create_parent_job(self, request: JobRequest, *, request_id: str | None = None) -> job_pb2.ParentJob:
        """Create a parent job; a `request_id` that was sent before answers the job it made.

        Without one a new id is sent, so that a retried call cannot make two jobs.
        """
        wire = request.to_wire(request_id=request_id or str(uuid_utils.uuid7()))
        return (await self._caller.call(self._jobs.CreateParentJob, wire)).parent_job

    async def plan_parent_job(
        self, request: JobRequest, *, request_id: str | None = None
    ) -> job_service_pb2.CreateParentJobResponse:
        """Answer the parent job and the children that the request would make; nothing is stored.

        Where the targets have to be inspected first, that takes a parent job with an id and without children yet:
        follow it to its end, then list its children.
        """
        wire = request.to_wire(request_id=request_id or str(uuid_utils.uuid7()), dry_run=True)
        return await self._caller.call(self._jobs.CreateParentJob, wire)

    async def get_parent_job(self, parent_job_id: str) -> job_pb2.ParentJob:
        """Read a parent job."""
        request = job_service_pb2.GetParentJobRequest(parent_job_id=parent_job_id)
        return (await self._caller.call(self._jobs.GetParentJob, request)).parent_job

    async def get_child_job(self, child_job_id: str) -> job_service_pb2.GetChildJobResponse:
        """Read a child job with its attempts."""
        request = job_service_pb2.GetChildJobRequest(child_job_id=child_job_id)
        return await self._caller.call(self._jobs.GetChildJob, request)

    async def list_parent_jobs(
        self,
        *,
        states: Sequence["job_pb2.ParentJobState.ValueType"] = (),
        labels: Mapping[str, str] | None = None,
        target: str = "",
        oldest_first: bool = False,
        page_size: int = PAGE_SIZE,
    ) -> AsyncIterator[job_pb2.ParentJob]:
        """Yield the parent jobs that match every filter, the newest first."""
        order = (
            job_service_pb2.PARENT_JOB_ORDER_OLDEST_FIRST
            if oldest_first
            else job_service_pb2.PARENT_JOB_ORDER_NEWEST_FIRST
        )

        def request(token: str) -> job_service_pb2.ListParentJobsRequest:
            return job_service_pb2.ListParentJobsRequest(
                states=states, labels=labels, target=target, order=order, page_size=page_size, page_token=token
            )

        async for page in pages(lambda token: self._caller.call(self._jobs.ListParentJobs, request(token))):
            for parent_job in page.parent_jobs:
                yield parent_job

    async def list_child_jobs(
        self,
        parent_job_id: str,
        *,
        states: Sequence["job_pb2.ChildJobState.ValueType"] = (),
        target: str = "",
        operation: str = "",
        page_size: int = PAGE_SIZE,
    ) -> AsyncIterator[job_pb2.ChildJob]:
        """Yield the children that match every filter, in request order."""

        def request(token: str) -> job_service_pb2.ListChildJobsRequest:
            return job_service_pb2.ListChildJobsRequest(
                parent_job_id=parent_job_id,
                states=states,
                target=target,
                operation=operation,
                page_size=page_size,
                page_token=token,
            )

        async for page in pages(lambda token: self._caller.call(self._jobs.ListChildJobs, request(token))):
            for child_job in page.child_jobs:
                yield child_job

    async def cancel_parent_job(self, parent_job_id: str, *, reason: str = "") -> job_pb2.ParentJob:
        """End a parent job: pending children are cancelled, live ones are told to stop."""
        request = job_service_pb2.CancelParentJobRequest(parent_job_id=parent_job_id, reason=reason)
        return (await self._caller.call(self._jobs.CancelParentJob, request)).parent_job

    async def pause_parent_job(self, parent_job_id: str) -> job_pb2.ParentJob:
        """Hold a parent job: children that run finish, no other starts."""
        request = job_service_pb2.PauseParentJobRequest(parent_job_id=parent_job_id)
        return (await self._caller.call(self._jobs.PauseParentJob, request)).parent_job

    async def resume_parent_job(self, parent_job_id: str) -> job_pb2.ParentJob:
        """Let a paused parent job go on."""
        request = job_service_pb2.ResumeParentJobRequest(parent_job_id=parent_job_id)
        return (await self._caller.call(self._jobs.ResumeParentJob, request)).parent_job

    async def retry_parent_job(self, parent_job_id: str) -> job_pb2.ParentJob:
        """Open a new round of the failed children of a finished parent job."""
        request = job_service_pb2.RetryParentJobRequest(parent_job_id=parent_job_id)
        return (await self._caller.call(self._jobs.RetryParentJob, request)).parent_job

    async def delete_parent_job(self, parent_job_id: str) -> None:
        """Delete a finished parent job with all that belongs to it."""
        request = job_service_pb2.DeleteParentJobRequest(parent_job_id=parent_job_id)
        await self._caller.call(self._jobs.DeleteParentJob, request)
