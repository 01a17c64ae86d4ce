"""A store beside the oracle: every call goes to both, and their answers are compared."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from manager_service.domain.errors import ManagerError
from manager_service.domain.fleet import Registration, Timing
from manager_service.domain.leases import Heartbeat, Lease, Poll, Report, ReportAnswer
from manager_service.domain.model import ChildJob, ParentJob, Plan, Span
from manager_service.domain.ports import ChildJobFilter, JobStore
from manager_service.domain.states import ChildJobState
from tests.doubles import CountingIds, FakeClock
from tests.property.comparison import ALL, Comparison
from tests.property.oracle import Oracle
from tests.stores import open_any_store

T = TypeVar("T")
NewStore = Callable[[], str]


@dataclass(slots=True)
class EvenIds(CountingIds):
    """Ids that count, and chance that always stands at one half."""

    def random(self) -> float:
        return 0.5


class Rig:
    """Drives both; remembers what was sent, so that it can be sent again, late or forged."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.clock, self.ids, self.timing = FakeClock(), EvenIds(), Timing()
        self.runner = asyncio.Runner()
        self.store = self.open()
        self.oracle = Oracle(self.timing, self.clock.wall())
        self.oracle.shared = url.startswith("postgresql:")
        self.comparison = Comparison(self.oracle)
        self.seen: Counter[str] = self.oracle.seen
        self.polls: list[tuple[str, Poll]] = []
        self.reports: list[tuple[str, Report]] = []
        self.beats: list[Heartbeat] = []
        self.granted: list[tuple[str, Lease]] = []
        self.gone: list[str] = ["no parent job"]

    def open(self) -> JobStore:
        return open_any_store(self.url, clock=self.clock, ids=self.ids, timing=self.timing)

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    def close(self) -> None:
        try:
            self.run(self.store.close())
        finally:
            self.runner.close()

    def check(self, *, everything: bool = False) -> None:
        self.run(self.comparison.check(self.store, everything=everything))

    def drive(
        self, verb: str, call: Awaitable[T], told: Callable[[T], object], *, writes: bool = True
    ) -> T | None:
        """Call the store, tell the oracle what it answered, and show that both refuse alike."""
        got, refusal = self.run(_outcome(call))
        if writes:
            self.oracle.begin()
        expected: ManagerError | None = None
        try:
            # The oracle looks at an answer only after everything that it would refuse the call for.
            told(got)  # type: ignore[arg-type]  # a refused call has no answer
        except ManagerError as error:
            expected = error
        except (AssertionError, AttributeError, TypeError, KeyError) as error:
            if refusal is None:
                raise
            raise AssertionError(f"{verb} was refused: {refusal!r}") from error
        assert (type(refusal), str(refusal)) == (type(expected), str(expected)), f"{verb} answered {got}"
        self.seen[verb if refusal is None else f"{verb}: {type(refusal).__name__}"] += 1
        return got

    # Clients.

    def create(self, plan: Plan) -> None:
        async def created() -> tuple[ParentJob, bool, Sequence[ChildJob]]:
            made = await self.store.create_parent_job(plan)
            children = await self.store.child_jobs(made.parent_job.id, ChildJobFilter(), limit=ALL)
            return made.parent_job, made.existing, children

        self.drive("create_parent_job", created(), lambda got: self.oracle.create(plan, got))

    def parent_verb(self, verb: str, parent_id: str) -> None:
        arguments = ("enough",) if verb == "cancel" else ()
        call = getattr(self.store, f"{verb}_parent_job")(parent_id, *arguments)
        self.drive(f"{verb}_parent_job", call, lambda _: getattr(self.oracle, verb)(parent_id))
        self._note_gone(parent_id)

    def _note_gone(self, *parent_ids: str) -> None:
        self.gone += [parent_id for parent_id in parent_ids if parent_id not in self.oracle.parents]

    # Workers.

    def register(self, registration: Registration) -> None:
        call = self.store.register(registration)
        self.drive("register", call, lambda got: self.oracle.register(registration, got))

    def deregister(self, session_id: str) -> None:
        call = self.store.deregister(session_id)
        self.drive("deregister", call, lambda _: self.oracle.deregister(session_id))

    def acquire(self, session_id: str, poll: Poll) -> None:
        self.polls.append((session_id, poll))
        call = self.store.acquire(session_id, poll)
        self._take(session_id, self.drive("acquire", call, lambda got: self.oracle.acquire(session_id, poll, got)))

    def _take(self, session_id: str, leases: Sequence[Lease] | None) -> None:
        known = {lease.lease_id for _, lease in self.granted}
        self.granted += [(session_id, lease) for lease in leases or () if lease.lease_id not in known]

    def heartbeat(self, beat: Heartbeat) -> None:
        self.beats.append(beat)
        self.drive("heartbeat", self.store.heartbeat(beat), lambda got: self.oracle.heartbeat(beat, got))

    def report(self, session_id: str, reports: Sequence[Report], poll: Poll | None = None) -> None:
        self.reports += [(session_id, report) for report in reports]

        def told(got: ReportAnswer) -> None:
            self.oracle.report(session_id, reports, poll, got)

        answer = self.drive("report", self.store.report(session_id, reports, poll), told)
        if poll is not None:
            self.polls.append((session_id, poll))
            self._take(session_id, answer.leases if answer else ())

    # Upkeep.

    def expire(self, limit: int) -> None:
        async def expired() -> tuple[int, set[str]]:
            got = await self.store.expire_leases(limit=limit)
            return got, await self._in_state(ChildJobState.LEASED, ChildJobState.RUNNING)

        self.drive("expire_leases", expired(), lambda got: self.oracle.expire(limit, *got))

    def sweep(self, parent_id: str, limit: int) -> None:
        async def swept() -> tuple[bool, set[str]]:
            more = await self.store.sweep(parent_id, limit=limit)
            return more, await self._in_state(ChildJobState.PENDING)

        self.drive("sweep", swept(), lambda got: self.oracle.sweep(parent_id, limit, *got))

    async def _in_state(self, *states: ChildJobState) -> set[str]:
        wanted = ChildJobFilter(states=frozenset(states))
        pages = [await self.store.child_jobs(parent_id, wanted, limit=ALL) for parent_id in self.oracle.parents]
        return {child.id for page in pages for child in page}

    def fail_overdue(self) -> None:
        self.drive("fail_overdue", self.store.fail_overdue(limit=ALL), self.oracle.fail_overdue)

    def release_due(self) -> None:
        self.drive("release_due", self.store.release_due(), self.oracle.release_due)

    def mark_alive(self) -> None:
        def told(_: None) -> None:
            self.oracle.mark = self.oracle.now

        self.drive("mark_alive", self.store.mark_alive(), told)

    def prune(self, age: Span) -> None:
        before = list(self.oracle.parents)
        self.drive("prune", self.store.prune(age=age, limit=ALL), lambda _: self.oracle.prune(age))
        self._note_gone(*before)

    # Time.

    def pass_time(self, span: Span) -> None:
        self.clock.pass_time(span)
        self.oracle.now += span

    def live_on(self, span: Span) -> None:
        """Let time pass while the manager lives: it marks itself alive as it goes."""
        while span > 0:
            step = min(self.timing.heartbeat_interval, span)
            self.pass_time(step)
            self.mark_alive()
            span -= step

    def restart(self, span: Span) -> None:
        """Let the manager be down for a span by the wall clock, which may have been set back."""
        self.run(self.store.close())
        self.clock.reboot()
        self.clock.step(span)
        self.store = self.open()
        self.oracle.reopen(self.clock.wall())


async def _outcome(call: Awaitable[T]) -> tuple[T | None, ManagerError | None]:
    try:
        return await call, None
    except ManagerError as refusal:
        return None, refusal
