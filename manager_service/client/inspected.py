"""Plans of whole databases with what their workers tell of them, which a dry run alone does not ask for."""

from dataclasses import replace

from manager_service.client.client import ManagerClient
from manager_service.client.errors import ClientError
from manager_service.client.options import Scope
from manager_service.client.request import JobRequest
from manager_service.client.talk import tell
from manager_service.client.thresholds import Threshold
from overhaul.v1 import job_service_pb2

ALWAYS = Threshold(condition="1")
"""Holds of everything: a request with it has its targets inspected, and leaves nothing out."""


async def plan_inspected(client: ManagerClient, request: JobRequest) -> job_service_pb2.CreateParentJobResponse:
    """Answer what a request would make, and have the targets inspected for it where their workers can.

    Raises:
        ClientError: the manager refused the request, or did not answer.
    """
    if request.scope is not Scope.DATABASE or request.only_if:
        return await client.plan_parent_job(request)
    try:
        return await client.plan_parent_job(replace(request, only_if=[ALWAYS]))
    except ClientError as error:
        why = [one.description for one in error.field_violations if one.field == "only_if"]
        if not why:
            raise
        planned = await client.plan_parent_job(request)
        tell(f"the statements are not known: {'; '.join(why)}")
        return planned
