import asyncio
import uuid
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from manager_service.domain import fleet
from manager_service.domain.errors import (
    InvalidRequestError,
    OverloadedError,
    ProtocolVersionUnsupportedError,
    SessionSupersededError,
)
from manager_service.domain.fleet import (
    Losses,
    OptionSpec,
    OptionType,
    Registration,
    ServedTarget,
    SessionState,
    Timing,
    Versions,
    Worker,
    WorkerDirective,
)
from manager_service.domain.leases import (
    Heartbeat,
    HeldLease,
    LeaseDirective,
    LogBatch,
    Poll,
    ReleaseReason,
    Report,
)
from manager_service.domain.model import SECOND, Failure, LogEntry, Progress
from manager_service.domain.ports import Hints
from manager_service.domain.states import FailureCategory, Outcome, Verdict
from manager_service.domain.totals import LockWaiter
from manager_service.leasing import LeaseDesk
from manager_service.leasing import desk as desks
from manager_service.leasing.checks import check_logs, check_poll, check_registration, check_reports
from manager_service.leasing.heartbeats import Heartbeats
from manager_service.leasing.lost_workers import LostWorkers
from manager_service.leasing.parking import Parking
from manager_service.leasing.polls import Polls
from manager_service.leasing.sessions import KEPT, Sessions
from tests.unit.manager_doubles import (
    CHILD_ID,
    NOW,
    PARENT_ID,
    CountedIds,
    LeaseStore,
    SilentFeed,
    StillClock,
    lease,
    offered,
)

INSTANCE = "0190b5a0-0000-7000-8000-00000000000a"
DAY = 86_400 * SECOND


def registration(worker_name: str, *targets: str) -> Registration:
    served = tuple(
        ServedTarget(name=name, engine="sqlite", engine_version="3", identity=f"id:{name}") for name in targets
    )
    return Registration(worker_name=worker_name, instance_id=INSTANCE, targets=served)


async def settled() -> None:
    """Let everything that can go on go on."""
    for _ in range(10):
        await asyncio.sleep(0)


class Bench:
    """Polls and heartbeats over a store that answers as it is told."""

    def __init__(self, *, most: int = 100) -> None:
        self.store = LeaseStore()
        self.clock = StillClock()
        self.sessions = Sessions(self.clock)
        self.parking = Parking(self.sessions, most=most)
        store: Any = self.store
        self.polls = Polls(
            store, self.sessions, self.parking, clock=self.clock, ids=CountedIds(), window=50 * SECOND
        )
        self.feed = SilentFeed()
        self.heartbeats = Heartbeats(store, self.feed, self.sessions, clock=self.clock, interval=10 * SECOND)
        self.tasks: list[asyncio.Task[Any]] = []

    def serve(self, session_id: str, *targets: str) -> None:
        self.sessions.opened(session_id, registration(f"worker of {session_id}", *targets))

    async def started(self, call: Awaitable[Any]) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(call)
        self.tasks.append(task)
        await settled()
        return task

    async def poll(
        self, session_id: str = "s1", sequence: int = 1, *, wait: int = 30 * SECOND
    ) -> asyncio.Task[Any]:
        wish = Poll(sequence=sequence, max_leases=1)
        return await self.started(self.polls.acquire(session_id, wish, wait=wait, remaining=DAY))

    async def beat(
        self,
        sequence: int = 1,
        *,
        wait: int = 9 * SECOND,
        draining: bool = False,
        held: tuple[HeldLease, ...] = (),
    ) -> asyncio.Task[Any]:
        beat = Heartbeat(session_id="s1", sequence=sequence, draining=draining, leases=held)
        return await self.started(self.heartbeats.beat(beat, wait=wait, remaining=DAY))


@pytest.fixture
async def bench() -> Any:
    bench = Bench()
    yield bench
    for task in bench.tasks:
        task.cancel()
    await asyncio.gather(*bench.tasks, return_exceptions=True)


class TestAPoll:
    async def test_is_answered_at_once_when_there_is_a_child(self, bench: Bench) -> None:
        bench.store.ready = [lease()]

        assert (await bench.poll()).result() == (lease(),)

    async def test_without_wait_is_answered_empty(self, bench: Bench) -> None:
        assert (await bench.poll(wait=0)).result() == ()

    async def test_hangs_until_a_child_of_its_targets_is_ready(self, bench: Bench) -> None:
        bench.serve("s1", "app")
        task = await bench.poll()
        bench.store.ready = [lease()]

        bench.parking.wake({"app": 1})

        assert await task == (lease(),)

    async def test_is_not_woken_for_another_target(self, bench: Bench) -> None:
        bench.serve("s1", "app")
        await bench.poll()

        bench.parking.wake({"other": 1})
        await settled()

        assert len(bench.store.acquired) == 1

    async def test_of_a_session_that_is_not_known_here_is_woken_for_all(self, bench: Bench) -> None:
        task = await bench.poll()
        bench.store.ready = [lease()]

        bench.parking.wake({"any": 1})

        assert await task == (lease(),)

    async def test_only_one_is_woken_per_child(self, bench: Bench) -> None:
        for number in range(5):
            bench.serve(f"s{number}", "app")
            await bench.poll(f"s{number}")
        bench.store.ready = [lease(1), lease(2)]

        bench.parking.wake({"app": 2})
        await settled()

        assert len(bench.store.acquired) == 5 + 2
        assert sum(task.done() for task in bench.tasks) == 2

    async def test_they_are_woken_in_turn(self, bench: Bench) -> None:
        for name in ("s1", "s2"):
            bench.serve(name, "app")
            await bench.poll(name, wait=30 * SECOND)
        bench.store.ready = [lease(1)]
        bench.parking.wake({"app": 1})
        await settled()
        await bench.poll("s1", 2)
        bench.store.ready = [lease(2)]

        bench.parking.wake({"app": 1})
        await settled()

        assert bench.tasks[1].done()

    async def test_that_finds_nothing_sends_others_a_few_times(self, bench: Bench) -> None:
        for number in range(10):
            bench.serve(f"s{number}", "app")
            await bench.poll(f"s{number}")

        bench.parking.wake({"app": 1})
        await settled()

        assert len(bench.store.acquired) == 10 + 4

    async def test_that_is_cancelled_before_it_looked_sends_another(self, bench: Bench) -> None:
        for name in ("s1", "s2"):
            bench.serve(name, "app")
        first, second = await bench.poll("s1"), await bench.poll("s2")
        bench.store.ready = [lease()]

        bench.parking.wake({"app": 1})
        first.cancel()

        assert await second == (lease(),)

    async def test_that_fails_sends_another(self, bench: Bench) -> None:
        for name in ("s1", "s2"):
            bench.serve(name, "app")
            await bench.poll(name)
        bench.store.error = SessionSupersededError("w")

        bench.parking.wake({"app": 1})
        await settled()

        assert all(isinstance(task.exception(), SessionSupersededError) for task in bench.tasks)

    async def test_a_newer_one_ends_the_older(self, bench: Bench) -> None:
        older = await bench.poll(sequence=1)

        newer = await bench.poll(sequence=2)

        assert older.result() == ()
        assert not newer.done()

    async def test_a_lower_one_does_not_hang_beside_a_newer(self, bench: Bench) -> None:
        newer = await bench.poll(sequence=2)

        assert (await bench.poll(sequence=1)).result() == ()
        assert not newer.done()

    async def test_looks_again_by_itself(self, bench: Bench) -> None:
        bench.serve("s1", "app")
        task = await bench.poll()
        bench.store.ready = [lease()]

        assert await asyncio.wait_for(task, 3) == (lease(),)

    async def test_ends_empty_before_its_caller_gives_up(self, bench: Bench) -> None:
        wish = Poll(sequence=1, max_leases=1)
        task = await bench.started(bench.polls.acquire("s1", wish, wait=DAY, remaining=SECOND))
        done = []
        for passed in (SECOND // 2, SECOND * 3 // 4):
            bench.clock.steady = passed
            bench.parking.look("s1")
            await settled()
            done.append(task.done())

        assert done == [False, True]
        assert task.result() == ()

    async def test_too_many_are_refused(self) -> None:
        bench = Bench(most=1)
        hanging = await bench.poll("s1")

        with pytest.raises(OverloadedError):
            await (await bench.poll("s2"))
        hanging.cancel()

    async def test_all_end_when_the_manager_stops(self, bench: Bench) -> None:
        hanging = await bench.poll()

        bench.parking.stop()

        assert await hanging == ()
        assert (await bench.poll(sequence=2)).result() == ()
        assert len(bench.store.acquired) == 1

    async def test_that_has_ended_leaves_nothing_behind(self, bench: Bench) -> None:
        hanging = await bench.poll()
        bench.parking.end("s1")
        await hanging

        assert len(bench.parking) == 0

    async def test_is_asked_to_look_when_its_session_changed(self, bench: Bench) -> None:
        hanging = await bench.poll()
        bench.store.error = SessionSupersededError("w")

        bench.parking.look("s1")

        with pytest.raises(SessionSupersededError):
            await hanging

    async def test_looks_again_a_moment_after_another_manager_had_a_hand_on_a_child(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(desks, "_CONTENDED_FOR", 0.001)
        store: Any = bench.store
        desk = LeaseDesk(store, bench.feed, clock=bench.clock, ids=CountedIds(), timing=Timing())
        poll = Poll(sequence=1, max_leases=1)
        hanging = await bench.started(desk.polls.acquire("s1", poll, wait=30 * SECOND, remaining=DAY))
        bench.store.ready = [lease()]

        desk.hear(Hints(contended=frozenset({"app"})))

        assert await hanging == (lease(),)

    async def test_of_a_session_that_registered_anew_at_another_manager_is_woken_for_all(
        self, bench: Bench
    ) -> None:
        store: Any = bench.store
        desk = LeaseDesk(store, bench.feed, clock=bench.clock, ids=CountedIds(), timing=Timing())
        desk._sessions.opened("s1", registration("anna", "app"))
        poll = Poll(sequence=1, max_leases=1)
        hanging = await bench.started(desk.polls.acquire("s1", poll, wait=30 * SECOND, remaining=DAY))
        desk.hear(Hints(renewed=frozenset({"s1"})))
        bench.store.ready = [lease()]

        desk.hear(Hints(ready={"added": 1}))

        assert await hanging == (lease(),)

    async def test_the_wish_in_a_report_ends_the_older(self, bench: Bench) -> None:
        store: Any = bench.store
        desk = LeaseDesk(store, bench.feed, clock=bench.clock, ids=CountedIds(), timing=Timing())
        wish = Poll(sequence=1, max_leases=1)
        hanging = await bench.started(desk.polls.acquire("s1", wish, wait=30 * SECOND, remaining=DAY))

        await desk.report("s1", [], replace(wish, sequence=2))
        await settled()

        assert hanging.done()
        assert hanging.result() == ()


class TestSessions:
    def test_a_new_instance_replaces_the_older_session(self) -> None:
        sessions = Sessions(StillClock())
        sessions.opened("s1", registration("w", "app"))

        sessions.opened("s2", registration("w", "app"))

        assert tuple(sessions.serving("app")) == ("s2",)
        assert not sessions.known("s1")

    def test_registering_again_replaces_the_targets(self) -> None:
        sessions = Sessions(StillClock())
        sessions.opened("s1", registration("w", "a", "b"))
        sessions.polled("s1")

        sessions.opened("s1", registration("w", "b", "c"))

        assert [tuple(sessions.serving(name)) for name in "abc"] == [(), ("s1",), ("s1",)]
        assert sessions.poll_time("s1") == NOW

    def test_closing_forgets(self) -> None:
        sessions = Sessions(StillClock())
        sessions.opened("s1", registration("w", "a"))

        sessions.closed("s1")
        sessions.closed("s1")

        assert tuple(sessions.serving("a")) == ()
        assert sessions.poll_time("s1") is None

    def test_who_has_long_been_silent_is_forgotten_when_another_opens(self) -> None:
        clock = StillClock()
        sessions = Sessions(clock)
        for name in ("crashed", "polling", "beating"):
            sessions.opened(name, registration(name, "a", f"only {name}"))
        clock.steady += KEPT
        sessions.polled("polling")
        sessions.called("beating")
        clock.steady += 1

        sessions.opened("new", registration("new", "a"))

        assert [sessions.known(name) for name in ("crashed", "polling", "beating")] == [False, True, True]
        assert tuple(sessions.serving("a")) == ("polling", "beating", "new")
        assert tuple(sessions.serving("only crashed")) == ()

    async def test_one_that_was_forgotten_still_polls(self, bench: Bench) -> None:
        bench.serve("s1", "app")
        bench.clock.steady += KEPT + 1
        bench.serve("s2", "other")
        task = await bench.poll("s1")
        bench.store.ready = [lease()]

        bench.parking.wake({"app": 1})

        assert not bench.sessions.known("s1")
        assert await task == (lease(),)

    async def test_one_that_only_beats_is_remembered(self, bench: Bench) -> None:
        bench.serve("s1", "app")
        bench.clock.steady += KEPT + 1
        await bench.beat(wait=0)

        bench.serve("s2", "app")

        assert bench.sessions.known("s1")


class TestAHeartbeat:
    held = (HeldLease(lease_id="lease-1", attempt=1),)

    async def test_without_wait_is_answered_at_once(self, bench: Bench) -> None:
        assert (await bench.beat(wait=0)).done()

    async def test_hangs_while_there_is_no_news(self, bench: Bench) -> None:
        assert not (await bench.beat(held=self.held)).done()

    async def test_is_answered_when_a_lease_is_to_stop(self, bench: Bench) -> None:
        hanging = await bench.beat(held=self.held)
        bench.store.directives["lease-1"] = LeaseDirective.CANCEL

        bench.heartbeats.look(["s1", "s2"])

        assert (await hanging).leases == (LeaseDirective.CANCEL,)

    async def test_looks_with_its_own_sequence_so_that_it_is_no_second_beat(self, bench: Bench) -> None:
        hanging = await bench.beat(7, held=self.held)
        bench.store.directives["lease-1"] = LeaseDirective.LOST

        bench.heartbeats.look(["s1"])
        await hanging

        assert [beat.sequence for beat in bench.store.beats] == [7, 7]

    async def test_goes_on_hanging_when_the_hint_was_idle(self, bench: Bench) -> None:
        hanging = await bench.beat(held=self.held)

        bench.heartbeats.look(["s1"])
        await settled()

        assert not hanging.done()

    async def test_is_answered_when_the_worker_is_to_drain(self, bench: Bench) -> None:
        hanging = await bench.beat()
        bench.store.directive = WorkerDirective.DRAIN

        bench.heartbeats.look(["s1"])

        assert (await hanging).directive is WorkerDirective.DRAIN

    async def test_of_a_worker_that_drains_hangs_in_spite_of_the_directive(self, bench: Bench) -> None:
        bench.store.directive = WorkerDirective.DRAIN

        assert not (await bench.beat(draining=True)).done()

    async def test_what_was_told_does_not_end_the_next_at_once(self, bench: Bench) -> None:
        bench.store.directives["lease-1"] = LeaseDirective.CANCEL
        assert (await bench.beat(1, held=self.held)).done()

        again = await bench.beat(2, held=self.held)

        assert not again.done()
        assert (await asyncio.wait_for(again, 3)).leases == (LeaseDirective.CANCEL,)

    async def test_a_newer_one_ends_the_older(self, bench: Bench) -> None:
        older = await bench.beat(1)

        newer = await bench.beat(2)

        assert older.done()
        assert not newer.done()

    async def test_a_lower_one_is_answered_beside_a_newer(self, bench: Bench) -> None:
        newer = await bench.beat(2)

        assert (await bench.beat(1)).done()
        assert not newer.done()

    async def test_all_are_answered_when_the_manager_stops(self, bench: Bench) -> None:
        hanging = await bench.beat()

        bench.heartbeats.stop()

        assert await hanging
        assert (await bench.beat(2)).done()

    async def test_ends_when_its_session_is_closed(self, bench: Bench) -> None:
        hanging = await bench.beat()

        bench.heartbeats.end("s1")
        bench.heartbeats.end("s2")

        assert await hanging

    async def test_publishes_the_progress_of_live_leases(self, bench: Bench) -> None:
        progress = Progress(phase="copy", done=1, total=2)
        bench.store.accepted = ((PARENT_ID, CHILD_ID, "lease-1"), (PARENT_ID, CHILD_ID, "lease-9"))
        held = (HeldLease(lease_id="lease-1", attempt=3, progress=progress), HeldLease(lease_id="gone", attempt=1))

        await bench.beat(wait=0, held=held)

        assert bench.feed.published == [(PARENT_ID, CHILD_ID, 3, progress)]

    async def test_a_worker_that_comes_back_is_told_by_its_name(self, bench: Bench) -> None:
        bench.store.back = "anna"

        with capture_logs() as lines:
            await bench.beat(1, wait=0)

        assert [(line["event"], line["worker_name"]) for line in lines] == [("worker is back", "anna")]

    async def test_an_older_one_sets_no_progress_back(self, bench: Bench) -> None:
        bench.store.accepted = ((PARENT_ID, CHILD_ID, "lease-1"),)
        progress = [Progress(phase="copy", done=done, total=9) for done in range(4)]
        for sequence in (2, 1, 2, 3):
            held = HeldLease(lease_id="lease-1", attempt=1, progress=progress[sequence])
            await bench.beat(sequence, wait=0, held=(held,))

        assert [told for *_, told in bench.feed.published] == [progress[2], progress[3]]

    async def test_what_a_closed_session_was_told_is_not_remembered(self, bench: Bench) -> None:
        hanging = await bench.beat(7, held=self.held)
        bench.heartbeats.end("s1")
        bench.store.directives["lease-1"] = LeaseDirective.CANCEL
        await hanging

        assert not bench.heartbeats.remembers("s1")

    async def test_who_has_long_not_beaten_is_forgotten(self, bench: Bench) -> None:
        await bench.beat(wait=0)
        bench.clock.steady += KEPT + 1
        beat = Heartbeat(session_id="s2", sequence=1, draining=False)
        await bench.heartbeats.beat(beat, wait=0, remaining=DAY)

        assert [bench.heartbeats.remembers(name) for name in ("s1", "s2")] == [False, True]

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"sequence": 0}, "sequence"),
            ({"leases": held + held}, "leases[1].lease_id"),
            ({"leases": (HeldLease(lease_id="", attempt=1),)}, "leases[0].lease_id"),
            ({"leases": (HeldLease(lease_id="a", attempt=0),)}, "leases[0].attempt"),
            ({"leases": tuple(HeldLease(lease_id=str(n), attempt=1) for n in range(1_001))}, "leases"),
        ],
    )
    async def test_that_makes_no_sense_is_refused(self, bench: Bench, changes: dict[str, Any], field: str) -> None:
        beat = replace(Heartbeat(session_id="s1", sequence=1, draining=False), **changes)

        with pytest.raises(InvalidRequestError) as caught:
            await bench.heartbeats.beat(beat, wait=0, remaining=DAY)

        assert field in {violation.field for violation in caught.value.violations}


def _option(**changes: Any) -> OptionSpec:
    return OptionSpec(name="o", type=OptionType.INTEGER, **changes)


def fields(caught: pytest.ExceptionInfo[InvalidRequestError]) -> set[str]:
    return {violation.field for violation in caught.value.violations}


class TestCheckRegistration:
    def test_another_protocol_is_refused_first(self) -> None:
        with pytest.raises(ProtocolVersionUnsupportedError):
            check_registration(Registration(worker_name="", instance_id=""), 2)

    @pytest.mark.parametrize("version", [6, 7])
    def test_a_worker_of_this_release_or_of_the_one_before_is_taken(
        self, monkeypatch: pytest.MonkeyPatch, version: int
    ) -> None:
        monkeypatch.setattr(fleet, "TAKEN", Versions(newest=7))

        check_registration(Registration(worker_name="w", instance_id=str(uuid.uuid4()), slots=1), version)

    @pytest.mark.parametrize(
        ("version", "upgrade"), [(5, "the worker"), (0, "the worker"), (8, "the managers first")]
    )
    def test_another_is_refused_with_the_versions_taken_and_who_is_to_be_upgraded(
        self, monkeypatch: pytest.MonkeyPatch, version: int, upgrade: str
    ) -> None:
        monkeypatch.setattr(fleet, "TAKEN", Versions(newest=7))

        with pytest.raises(ProtocolVersionUnsupportedError) as caught:
            check_registration(Registration(worker_name="w", instance_id=str(uuid.uuid4()), slots=1), version)

        expected = f"the worker speaks version {version} of the protocol, and this manager takes 6 to 7"
        assert str(caught.value) == f"{expected}; upgrade {upgrade}"

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"worker_name": ""}, "worker_name"),
            ({"instance_id": "x"}, "instance_id"),
            ({"slots": 0}, "slots"),
            ({"slots": 1_001}, "slots"),
            ({"labels": {str(n): "" for n in range(65)}}, "labels"),
            ({"host": "a\n"}, "host"),
        ],
    )
    def test_wrong_fields_are_named(self, changes: dict[str, Any], field: str) -> None:
        with pytest.raises(InvalidRequestError) as caught:
            check_registration(replace(registration("w", "app"), **changes), 1)

        assert fields(caught) == {field}

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"name": ""}, "targets[0].name"),
            ({"engine": ""}, "targets[0].engine"),
            ({"identity": ""}, "targets[0].identity"),
            ({"max_parallel": -1}, "targets[0].max_parallel"),
            ({"operations": (offered("a"), offered("a"))}, "targets[0].operations[1].name"),
            ({"operations": (offered(""),)}, "targets[0].operations[0].name"),
            ({"operations": (offered("a", key=" "),)}, "targets[0].operations[0].locks[0].key"),
            (
                {"operations": (replace(offered("a"), options=(_option(minimum=2, maximum=1),)),)},
                "targets[0].operations[0].options[0].minimum",
            ),
            (
                {"operations": (replace(offered("a"), options=(_option(values=("x",) * 65),)),)},
                "targets[0].operations[0].options[0].values",
            ),
            (
                {"operations": (replace(offered("a"), options=(_option(values=("x", " ")),)),)},
                "targets[0].operations[0].options[0].values[1]",
            ),
            (
                {"operations": (replace(offered("a", key="k"), locks=offered("a", key="k").locks * 17),)},
                "targets[0].operations[0].locks",
            ),
        ],
    )
    def test_wrong_targets_are_named(self, changes: dict[str, Any], field: str) -> None:
        wrong = replace(registration("w", "app").targets[0], **changes)

        with pytest.raises(InvalidRequestError) as caught:
            check_registration(replace(registration("w"), targets=(wrong,)), 1)

        assert fields(caught) == {field}

    def test_a_target_that_is_there_twice_is_named(self) -> None:
        with pytest.raises(InvalidRequestError) as caught:
            check_registration(registration("w", "a", "a"), 1)

        assert fields(caught) == {"targets[1].name"}


def report(**changes: Any) -> Report:
    base = Report(
        child_job_id=CHILD_ID,
        lease_id="l",
        attempt=1,
        report_id=INSTANCE,
        outcome=Outcome.COMPLETED,
        verdict=Verdict.EFFECTIVE,
    )
    return replace(base, **changes)


FAILED = Failure(reason="X", message="x", category=FailureCategory.IO, retryable=False)


class TestCheckReports:
    @pytest.mark.parametrize(
        "right",
        [
            report(),
            report(outcome=Outcome.SKIPPED, verdict=None),
            report(waiters=(LockWaiter(application="a", user="u", seconds=1.5, sessions=2),) * 8),
            report(outcome=Outcome.CANCELLED, verdict=None),
            report(outcome=Outcome.FAILED, verdict=None, failure=FAILED),
            report(outcome=Outcome.FAILED, verdict=None, failure=replace(FAILED, retryable=True), retry_after=1),
            report(outcome=Outcome.RELEASED, verdict=None, released=ReleaseReason.DRAIN, retry_after=0),
        ],
    )
    def test_right_ones_are_taken(self, right: Report) -> None:
        check_reports([right], None)

    @pytest.mark.parametrize(
        ("wrong", "field"),
        [
            (report(verdict=None), "results[0].verdict"),
            (report(outcome=Outcome.SKIPPED), "results[0].verdict"),
            (report(outcome=Outcome.FAILED, verdict=None), "results[0].failure"),
            (report(failure=FAILED), "results[0].failure"),
            (report(outcome=Outcome.RELEASED, verdict=None), "results[0].released"),
            (report(released=ReleaseReason.DRAIN), "results[0].released"),
            (report(retry_after=1), "results[0].retry_after"),
            (report(child_job_id=""), "results[0].child_job_id"),
            (report(lease_id=""), "results[0].lease_id"),
            (report(attempt=0), "results[0].attempt"),
            (report(report_id="x"), "results[0].report_id"),
            (report(reason="x" * 5_000), "results[0].reason"),
            (report(before={"a": float("inf")}), "results[0].before[a]"),
            (report(after={str(n): 0.0 for n in range(65)}), "results[0].after"),
            (report(after={"": 0.0}), "results[0].after[]"),
            (report(waiters=(LockWaiter(),) * 9), "results[0].lock_waiters"),
            (report(waiters=(LockWaiter(application="x" * 257),)), "results[0].lock_waiters[0]"),
            (report(waiters=(LockWaiter(), LockWaiter(seconds=-1.0))), "results[0].lock_waiters[1]"),
            (report(waiters=(LockWaiter(seconds=float("nan")),)), "results[0].lock_waiters[0]"),
        ],
    )
    def test_wrong_ones_are_named(self, wrong: Report, field: str) -> None:
        with pytest.raises(InvalidRequestError) as caught:
            check_reports([wrong], None)

        assert fields(caught) == {field}

    def test_too_many_are_refused(self) -> None:
        with pytest.raises(InvalidRequestError, match="1001"):
            check_reports([report()] * 1_001, None)

    @pytest.mark.parametrize(
        ("poll", "field"),
        [
            (Poll(sequence=0, max_leases=1), "want_next.poll_sequence"),
            (Poll(sequence=1, max_leases=-1), "want_next.max_leases"),
        ],
    )
    def test_a_wrong_next_poll_is_named(self, poll: Poll, field: str) -> None:
        with pytest.raises(InvalidRequestError) as caught:
            check_reports([], poll)

        assert fields(caught) == {field}


def test_a_poll_that_waits_backwards_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="wait"):
        check_poll(Poll(sequence=1, max_leases=1), -1)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"offset": -1}, "offset"),
        ({"attempt": 0}, "attempt"),
        ({"child_job_id": ""}, "child_job_id"),
        ({"entries": (LogEntry(time=0, level="loud", message=""),)}, "entries[0].level"),
        ({"entries": (LogEntry(time=0, level="info", message="ä" * 5_000),)}, "entries[0].message"),
        ({"entries": (LogEntry(time=0, level="info", message=""),) * 1_001}, "entries"),
    ],
)
def test_log_entries_that_make_no_sense_are_refused(changes: dict[str, Any], field: str) -> None:
    batch = LogBatch(session_id="s", child_job_id=CHILD_ID, lease_id="l", attempt=1, offset=0, entries=())

    with pytest.raises(InvalidRequestError) as caught:
        check_logs(replace(batch, **changes))

    assert fields(caught) == {field}


class TestLostWorkers:
    async def test_each_is_told_by_its_name(self) -> None:
        fleet = Fleet(1)

        with capture_logs() as lines:
            await LostWorkers(fleet.store).turn()

        assert lines == [
            {
                "event": "worker lost",
                "log_level": "warning",
                "worker_name": "w0",
                "session_id": "s0",
                "host": "h",
                "pid": 1,
                "targets": 1,
                "silent_seconds": 46.5,
            }
        ]

    async def test_many_are_found_in_batches(self) -> None:
        fleet = Fleet(2_500)

        with capture_logs() as lines:
            await LostWorkers(fleet.store).turn()

        assert (len(lines), fleet.asked) == (2_500, 3)


class Fleet:
    """A store that finds so many workers lost."""

    def __init__(self, lost: int) -> None:
        self.lost = [self.worker(number) for number in range(lost)]
        self.asked = 0
        self.store: Any = self

    async def note_losses(self, *, limit: int) -> Losses:
        self.asked += 1
        found, self.lost = self.lost[:limit], self.lost[limit:]
        return Losses(workers=tuple(found), time=NOW + 46_500_000)

    def worker(self, number: int) -> Worker:
        return Worker(
            worker_name=f"w{number}",
            instance_id="i",
            session_id=f"s{number}",
            state=SessionState.LOST,
            build="",
            host="h",
            pid=1,
            labels={},
            slots=1,
            slots_used=0,
            targets=("a",),
            create_time=NOW,
            heartbeat_time=NOW,
        )
