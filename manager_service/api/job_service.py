from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
from typing_extensions import override

from manager_service.api.convert import events, jobs, requests
from manager_service.api.convert.pages import read_page
from manager_service.domain.ports import JobStore
from manager_service.domain.watch import ProgressFeed
from manager_service.orchestrator import Creation, LogReader, Watches
from overhaul.v1 import job_service_pb2, job_service_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class JobService(job_service_pb2_grpc.JobServiceServicer):
    """What clients call. Verbs that are one transaction go to the store, the others to their use case.

    Args:
        store: reads and steers jobs.
        creation: makes parent jobs.
        watches: follows parent jobs.
        progress: tells how long running children still take.
        logs: reads and follows logs.
    """

    def __init__(
        self,
        *,
        store: JobStore,
        creation: Creation,
        watches: Watches,
        progress: ProgressFeed,
        logs: LogReader,
    ) -> None:
        self._store = store
        self._creation = creation
        self._watches = watches
        self._progress = progress
        self._logs = logs

    @override
    async def CreateParentJob(
        self, request: job_service_pb2.CreateParentJobRequest, context: Context
    ) -> job_service_pb2.CreateParentJobResponse:
        """Make a parent job, or tell what would be made."""
        return jobs.created(await self._creation.create(requests.job_request(request)))

    @override
    async def GetParentJob(
        self, request: job_service_pb2.GetParentJobRequest, context: Context
    ) -> job_service_pb2.GetParentJobResponse:
        """Read a parent job."""
        job = await self._store.parent_job(requests.parent_job_id(request.parent_job_id))
        return job_service_pb2.GetParentJobResponse(parent_job=jobs.parent_job(job))

    @override
    async def ListParentJobs(
        self, request: job_service_pb2.ListParentJobsRequest, context: Context
    ) -> job_service_pb2.ListParentJobsResponse:
        """List parent jobs."""
        wanted, page = requests.parent_job_filter(request), read_page(request)
        found = await self._store.parent_jobs(wanted, after=page.after, limit=page.probe)
        shown, token = page.cut(found, lambda job: job.id)
        return job_service_pb2.ListParentJobsResponse(
            parent_jobs=[jobs.parent_job(job) for job in shown], next_page_token=token
        )

    @override
    async def ListChildJobs(
        self, request: job_service_pb2.ListChildJobsRequest, context: Context
    ) -> job_service_pb2.ListChildJobsResponse:
        """List the children of a parent job."""
        wanted, page = requests.child_job_filter(request), read_page(request, numeric=True)
        parent_job_id = requests.parent_job_id(request.parent_job_id)
        found = await self._store.child_jobs(parent_job_id, wanted, after=int(page.after or -1), limit=page.probe)
        shown, token = page.cut(found, lambda job: job.position)
        return job_service_pb2.ListChildJobsResponse(
            child_jobs=[jobs.child_job(self._progress.estimated(job)) for job in shown], next_page_token=token
        )

    @override
    async def GetChildJob(
        self, request: job_service_pb2.GetChildJobRequest, context: Context
    ) -> job_service_pb2.GetChildJobResponse:
        """Read a child job with its attempts."""
        job, attempts = await self._store.child_job(requests.child_job_id(request.child_job_id))
        return job_service_pb2.GetChildJobResponse(
            child_job=jobs.child_job(self._progress.estimated(job)),
            attempts=[jobs.attempt(attempt) for attempt in attempts],
        )

    @override
    async def ReadLogs(
        self, request: job_service_pb2.ReadLogsRequest, context: Context
    ) -> AsyncIterator[job_service_pb2.ReadLogsResponse]:
        """Read the log of an attempt."""
        attempt, offset = requests.log_place(request)
        child_job_id = requests.child_job_id(request.child_job_id)
        pages = self._logs.read(child_job_id, attempt=attempt, offset=offset, follow=request.follow)
        async with aclosing(pages):
            async for page in pages:
                yield jobs.log_page(page)

    @override
    async def WatchParentJob(
        self, request: job_service_pb2.WatchParentJobRequest, context: Context
    ) -> AsyncIterator[job_service_pb2.WatchParentJobResponse]:
        """Follow a parent job."""
        after = requests.after_sequence(request)
        updates = self._watches.watch(requests.parent_job_id(request.parent_job_id), after)
        async with aclosing(updates):
            async for update in updates:
                for message in events.watch_responses(update, several=request.several_events):
                    yield message

    @override
    async def CancelParentJob(
        self, request: job_service_pb2.CancelParentJobRequest, context: Context
    ) -> job_service_pb2.CancelParentJobResponse:
        """End a parent job."""
        parent_job_id, reason = requests.parent_job_id(request.parent_job_id), requests.cancel_reason(request)
        job = await self._store.cancel_parent_job(parent_job_id, reason)
        return job_service_pb2.CancelParentJobResponse(parent_job=jobs.parent_job(job))

    @override
    async def PauseParentJob(
        self, request: job_service_pb2.PauseParentJobRequest, context: Context
    ) -> job_service_pb2.PauseParentJobResponse:
        """Hold a parent job."""
        job = await self._store.pause_parent_job(requests.parent_job_id(request.parent_job_id))
        return job_service_pb2.PauseParentJobResponse(parent_job=jobs.parent_job(job))

    @override
    async def ResumeParentJob(
        self, request: job_service_pb2.ResumeParentJobRequest, context: Context
    ) -> job_service_pb2.ResumeParentJobResponse:
        """Let a paused parent job go on."""
        job = await self._store.resume_parent_job(requests.parent_job_id(request.parent_job_id))
        return job_service_pb2.ResumeParentJobResponse(parent_job=jobs.parent_job(job))

    @override
    async def RetryParentJob(
        self, request: job_service_pb2.RetryParentJobRequest, context: Context
    ) -> job_service_pb2.RetryParentJobResponse:
        """Open a new round of the failed children."""
        job = await self._store.retry_parent_job(requests.parent_job_id(request.parent_job_id))
        return job_service_pb2.RetryParentJobResponse(parent_job=jobs.parent_job(job))

    @override
    async def DeleteParentJob(
        self, request: job_service_pb2.DeleteParentJobRequest, context: Context
    ) -> job_service_pb2.DeleteParentJobResponse:
        """Delete a finished parent job."""
        await self._store.delete_parent_job(requests.parent_job_id(request.parent_job_id))
        return job_service_pb2.DeleteParentJobResponse()
