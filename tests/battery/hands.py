"""Workers without a program: they call any manager, as they may and as they may not, and note the answers."""

import asyncio
import itertools
import math
import random
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from overhaul.v1 import job_pb2 as job
from overhaul.v1 import lease_service_pb2 as leases
from overhaul.v1 import lease_service_pb2_grpc as leases_grpc
from tests.battery.crowd import is_away
from tests.battery.deployment import EVER_NEW
from tests.battery.linearizability import Answer, Call, Grant, Report
from tests.contract.manager_harness import served, span

SLOTS = 8
_CALL_SECONDS = 2.0
_POLL_SECONDS = 0.3
_AGAIN_SECONDS = 0.05
# How many reports ask for the next lease, as workers that have enough to do always do.
_WITH_NEXT = 0.3
# How many polls are made at two managers at once.
_TWICE = 0.3
_ANSWERS: Mapping[int, Answer] = {
    leases.REPORT_STATUS_RECORDED: Answer.RECORDED,
    leases.REPORT_STATUS_ALREADY_RECORDED: Answer.ALREADY_RECORDED,
    leases.REPORT_STATUS_STALE: Answer.STALE,
}
_COMPLETED, _FAILED, _RELEASED = "completed", "failed", "released"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unanswered:
    """A poll that may have been granted something that nobody was told of."""

    worker_name: str
    session_id: str
    poll: int
    begin: float


@dataclass(slots=True)
class History:
    """Every call and its answer, by child job."""

    calls: dict[str, list[Call]] = field(default_factory=dict)
    unanswered: list[Unanswered] = field(default_factory=list)
    # How many leases a poll of a session asked for.
    wanted: dict[tuple[str, int], int] = field(default_factory=dict)

    def granted(self) -> Counter[tuple[str, int]]:
        """Count the leases that each poll was told of, however often."""
        grants = {call.operation for calls in self.calls.values() for call in calls if call.certain}
        return Counter((grant.session_id, grant.poll) for grant in grants if isinstance(grant, Grant))

    def add(self, child_job_id: str, call: Call) -> None:
        self.calls.setdefault(child_job_id, []).append(call)


class Hand:
    """A session that polls and reports."""

    def __init__(
        self,
        name: str,
        stubs: Sequence[leases_grpc.LeaseServiceStub],
        history: History,
        chance: random.Random,
        late: tuple[float, float],
    ) -> None:
        self.name = name
        self.session_id = ""
        self._stubs = stubs
        self._history = history
        self._chance = chance
        self._late = late
        self._polls = 0
        self._free = SLOTS

    async def register(self, targets: Sequence[str], operations: Sequence[str]) -> None:
        offers = [leases.OfferedOperation(name=name, description="does it") for name in operations]
        request = leases.RegisterWorkerRequest(
            worker_name=self.name,
            instance_id=str(uuid.uuid4()),
            protocol_version=1,
            targets=[served(target, max_parallel=SLOTS, operations=offers) for target in targets],
            slots=SLOTS,
        )
        self.session_id = (await self._stubs[0].RegisterWorker(request)).session_id

    async def work(self, others: Sequence["Hand"], stop: asyncio.Event) -> None:
        """Poll, and end what is granted, until it is time to stop."""
        async with asyncio.TaskGroup() as group:
            while not stop.is_set():
                if self._free <= 0:
                    await asyncio.sleep(_AGAIN_SECONDS)
                    continue
                for lease in await self._poll():
                    group.create_task(self._end(lease, others))

    async def _poll(self) -> Sequence[leases.Lease]:
        self._polls += 1
        request = leases.AcquireLeasesRequest(
            session_id=self.session_id,
            poll_sequence=self._polls,
            max_leases=self._chance.randint(1, self._free),
            wait=span(_POLL_SECONDS),
        )
        # A worker that doubts one manager may ask another the same.
        times = 2 if self._chance.random() < _TWICE else 1
        tries = [self._tries("AcquireLeases", request) for _ in range(times)]
        calls = [call for made in await asyncio.gather(*tries) for call in made]
        return self._note_grants(calls, request.poll_sequence, request.max_leases)

    def _note_grants(self, calls: Sequence["_Made"], poll: int, wanted: int) -> Sequence[leases.Lease]:
        """Note what some equal calls told of, and what those without an answer may have granted."""
        self._history.wanted[self.session_id, poll] = wanted
        lost = [call for call in calls if call.answer is None]
        self._history.unanswered += [
            Unanswered(worker_name=self.name, session_id=self.session_id, poll=poll, begin=call.begin)
            for call in lost
        ]
        granted: dict[str, leases.Lease] = {}
        for call in calls:
            for lease in call.answer.leases if call.answer is not None else ():
                granted[lease.lease_id] = lease
                self._note_grant(lease, poll, call)
        for lease in granted.values():
            self._free -= 1
            for call in lost:
                self._note_grant(lease, poll, call)
        return list(granted.values())

    def _note_grant(self, lease: leases.Lease, poll: int, call: "_Made") -> None:
        grant = Grant(lease_id=lease.lease_id, attempt=lease.attempt, session_id=self.session_id, poll=poll)
        self._history.add(lease.child_job_id, Call(begin=call.begin, end=call.end, operation=grant))

    async def _end(self, lease: leases.Lease, others: Sequence["Hand"]) -> None:
        """End a lease, and those that are granted with the end of the one before."""
        mine: leases.Lease | None = lease
        while mine is not None:
            await asyncio.sleep(self._chance.uniform(0, 0.4))
            if self._chance.random() < _WITH_NEXT:
                mine = await self._report_and_go_on(mine)
            else:
                await self._report_in_some_way(mine, self._chance.choice(others))
                mine = None
            self._free += 1

    async def _report_and_go_on(self, lease: leases.Lease) -> leases.Lease | None:
        self._polls += 1
        want = leases.NextPoll(poll_sequence=self._polls, max_leases=1)
        calls = await self.report(lease, self._outcome(), str(uuid.uuid4()), want)
        return next(iter(self._note_grants(calls, want.poll_sequence, want.max_leases)), None)

    async def _report_in_some_way(self, lease: leases.Lease, other: "Hand") -> None:
        ways: Sequence[tuple[int, Callable[[leases.Lease, Hand], Awaitable[Any]]]] = (
            (6, self._once),
            (3, self._twice_at_once),
            (3, self._two_at_once),
            (2, self._robbed),
            (2, self._again_later),
            (1, self._too_late),
        )
        [way] = self._chance.choices([way for _, way in ways], [weight for weight, _ in ways])
        await way(lease, other)

    async def _once(self, lease: leases.Lease, _: "Hand") -> None:
        await self.report(lease, self._outcome(), str(uuid.uuid4()))

    async def _twice_at_once(self, lease: leases.Lease, _: "Hand") -> None:
        outcome, report_id = self._outcome(), str(uuid.uuid4())
        await asyncio.gather(*(self.report(lease, outcome, report_id) for _ in range(2)))

    async def _two_at_once(self, lease: leases.Lease, _: "Hand") -> None:
        outcomes = self._chance.sample((_COMPLETED, _FAILED, _RELEASED), 2)
        await asyncio.gather(*(self.report(lease, outcome, str(uuid.uuid4())) for outcome in outcomes))

    async def _robbed(self, lease: leases.Lease, other: "Hand") -> None:
        """Let another session report the same, before, after or meanwhile."""
        report_id = str(uuid.uuid4())
        await asyncio.gather(*(hand.report(lease, _COMPLETED, report_id) for hand in (other, self)))

    async def _again_later(self, lease: leases.Lease, _: "Hand") -> None:
        outcome, report_id = self._outcome(), str(uuid.uuid4())
        await self.report(lease, outcome, report_id)
        await asyncio.sleep(self._chance.uniform(0, 0.5))
        await self.report(lease, self._chance.choice((outcome, _FAILED)), report_id)

    async def _too_late(self, lease: leases.Lease, _: "Hand") -> None:
        await asyncio.sleep(self._chance.uniform(*self._late))
        await self.report(lease, _COMPLETED, str(uuid.uuid4()))

    def _outcome(self) -> str:
        return self._chance.choice((_COMPLETED, _COMPLETED, _FAILED, _RELEASED))

    async def report(
        self, lease: leases.Lease, outcome: str, report_id: str, want_next: leases.NextPoll | None = None
    ) -> Sequence["_Made"]:
        """Report until there is an answer; return every call."""
        request = leases.ReportResultsRequest(
            session_id=self.session_id, results=[_result(lease, outcome, report_id)], want_next=want_next
        )
        operation = Report(
            lease_id=lease.lease_id,
            attempt=lease.attempt,
            session_id=self.session_id,
            report_id=report_id,
            outcome=outcome,
            final=outcome == _COMPLETED,
        )
        calls = await self._tries("ReportResults", request)
        for call in calls:
            answer = None if call.answer is None else _ANSWERS[call.answer.verdicts[0].status]
            noted = Call(begin=call.begin, end=call.end, operation=operation, answer=answer)
            self._history.add(lease.child_job_id, noted)
        return calls

    async def _tries(self, method: str, request: Any) -> list["_Made"]:
        """Make a call at one manager after the other, until one answers; return every call."""
        made: list[_Made] = []
        start = self._chance.randrange(len(self._stubs))
        for stub in itertools.islice(itertools.cycle(self._stubs), start, None):
            begin = time.monotonic()
            try:
                answer = await getattr(stub, method)(request, timeout=_CALL_SECONDS)
            except grpc.aio.AioRpcError as error:
                if not is_away(error):
                    raise
                made.append(_Made(begin=begin))
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                return [*made, _Made(begin=begin, end=time.monotonic(), answer=answer)]
        raise AssertionError


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """When a call was made, when it was answered, and with what; its answer may have been lost."""

    begin: float
    end: float = math.inf
    answer: Any = None


def _result(lease: leases.Lease, outcome: str, report_id: str) -> leases.OperationResult:
    result = leases.OperationResult(
        child_job_id=lease.child_job_id, lease_id=lease.lease_id, attempt=lease.attempt, report_id=report_id
    )
    match outcome:
        case "completed":
            result.outcome, result.verdict = job.OUTCOME_COMPLETED, job.VERDICT_EFFECTIVE
        case "failed":
            result.outcome = job.OUTCOME_FAILED
            result.failure.CopyFrom(
                job.Failure(reason="BUSY", message="busy", category=job.FAILURE_CATEGORY_LOCKED, retryable=True)
            )
        case _:
            result.outcome, result.released = job.OUTCOME_RELEASED, leases.RELEASE_REASON_DRAIN
    return result


@asynccontextmanager
async def hands(
    names: Sequence[str],
    addresses: Sequence[str],
    history: History,
    chance: random.Random,
    *,
    late: tuple[float, float],
) -> AsyncIterator[list[Hand]]:
    """Connect workers to every manager."""
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(address, options=EVER_NEW))
            for address in addresses
        ]
        stubs = [leases_grpc.LeaseServiceStub(channel) for channel in channels]
        yield [Hand(name, stubs, history, chance, late) for name in names]
