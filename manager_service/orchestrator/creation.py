import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from manager_service.domain.errors import FieldViolation, InvalidRequestError, TargetNotFoundError
from manager_service.domain.fleet import OfferedOperation, Offers
from manager_service.domain.inspection import INSPECT, is_inspected
from manager_service.domain.model import ParentJob, Plan, PlannedChild, Span
from manager_service.domain.planning import DEFAULT_OPERATIONS, plan, planned_parent
from manager_service.domain.ports import Clock, JobStore
from manager_service.domain.request import MAX_TARGETS, JobRequest, request_hash, request_violations

log = structlog.get_logger("manager.orchestrator")

_PAGE = 1_000
_NEAR_FOR = 5
_SMALL = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a request would make: a parent job without an id and its children."""

    parent_job: ParentJob
    children: tuple[PlannedChild, ...]


class Creation:
    """Makes parent jobs.

    Args:
        store: knows the targets and keeps the jobs.
        clock: tells whether a deadline has passed.
    """

    def __init__(self, store: JobStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def create(self, request: JobRequest) -> ParentJob | Preview:
        """Make a parent job, or tell what would be made when the request is a dry run.

        Raises:
            InvalidRequestError: one or more fields are wrong.
            TargetNotFoundError: no worker ever served some of the targets.
            RequestIdReusedError: the request_id was used for another request.
        """
        if (before := await self._created_before(request)) is not None:
            return before
        planned = await self._plan(request)
        if _is_preview(request):
            return Preview(parent_job=planned_parent(planned, self._clock.wall()), children=planned.children)
        created = await self._store.create_parent_job(planned)
        log.info(
            "parent job created",
            parent_job_id=created.parent_job.id,
            children=len(planned.children),
            existing=created.existing,
        )
        return created.parent_job

    async def _created_before(self, request: JobRequest) -> ParentJob | None:
        """Find what the same request made; its deadline may have passed or its target be forgotten since."""
        if request.request_id is None or _is_preview(request):
            return None
        return await self._store.requested_parent_job(request.request_id, request_hash(request))

    async def _plan(self, request: JobRequest) -> Plan:
        now = self._clock.wall()
        if wrong := request_violations(request, now):
            raise InvalidRequestError(wrong)
        offers = await self._selected(request) if request.target_labels else await self._named(request)
        expected = await self._expected(request, request.targets or tuple(offers))
        if len(request.targets or offers) <= _SMALL:
            return plan(request, offers, now, expected)
        # A large plan takes seconds, during which heartbeats have to be answered.
        return await asyncio.to_thread(plan, request, offers, now, expected)

    async def _expected(self, request: JobRequest, targets: Sequence[str]) -> Mapping[tuple[str, str], Span]:
        """Read what the first children are expected to take, where that was learned, page by page."""
        operations = [INSPECT] if _is_inspected(request) else sorted(_asked(request))
        expected: dict[tuple[str, str], Span] = {}
        for begin in range(0, len(targets), _PAGE):
            page = targets[begin : begin + _PAGE]
            expected.update(await self._store.expected_of_databases(page, operations))
            await asyncio.sleep(0)
        return expected

    async def _named(self, request: JobRequest) -> Offers:
        offers = await self._offers(request)
        missing = [name for name in request.targets if name not in offers]
        if missing and not request.allow_unknown_targets:
            near = {name: await self._store.target_names_near(name) for name in missing[:_NEAR_FOR]}
            raise TargetNotFoundError(missing, near)
        return offers

    async def _offers(self, request: JobRequest) -> Offers:
        """Read what the known targets offer; of many only what is asked for, unless a refusal names the rest."""
        if len(request.targets) <= _PAGE:
            return await self._store.offers(request.targets)
        asked = _asked(request) | ({INSPECT} if _is_inspected(request) else set())
        offers = await self._offers_in_pages(request.targets, asked)
        found = {name for by_name in offers.values() for name in by_name}
        return offers if not offers or asked <= found else await self._offers_in_pages(request.targets, None)

    async def _offers_in_pages(self, names: Sequence[str], operations: frozenset[str] | None) -> Offers:
        """Read what targets offer, page by page, so that other calls are answered in between."""
        offers: dict[str, Mapping[str, OfferedOperation]] = {}
        for begin in range(0, len(names), _PAGE):
            offers.update(await self._store.offers(names[begin : begin + _PAGE], operations))
            await asyncio.sleep(0)
        return offers

    async def _selected(self, request: JobRequest) -> Offers:
        found: dict[str, Mapping[str, OfferedOperation]] = {}
        after = ""
        while True:
            page = await self._store.targets(labels=request.target_labels, after=after, limit=_PAGE)
            found.update((target.name, {offer.name: offer for offer in target.operations}) for target in page)
            if len(found) > MAX_TARGETS:
                text = f"select more than {MAX_TARGETS} targets; select fewer"
                raise InvalidRequestError([FieldViolation("target_labels", text)])
            if len(page) < _PAGE:
                return found
            after = page[-1].name


def _is_preview(request: JobRequest) -> bool:
    """Tell whether a request is answered without a parent job; what has to be inspected needs one all the same."""
    return request.dry_run and not _is_inspected(request)


def _is_inspected(request: JobRequest) -> bool:
    return is_inspected(request.scope, request.only_if)


def _asked(request: JobRequest) -> frozenset[str]:
    return frozenset(operation.name for operation in request.operations or DEFAULT_OPERATIONS)
