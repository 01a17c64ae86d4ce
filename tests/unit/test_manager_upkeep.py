import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from manager_service.domain.errors import (
    ChildJobNotFoundError,
    ParentJobNotFoundError,
    ShuttingDownError,
    StoreUnavailableError,
)
from manager_service.domain.events import ChildJobChange, Event, EventPage
from manager_service.domain.fleet import Timing
from manager_service.domain.model import MILLISECOND, SECOND, LogPage, Progress
from manager_service.domain.states import ChildJobState, Counts, ParentJobState
from manager_service.domain.watch import Batch
from manager_service.housekeeping import Housekeeping, Loop
from manager_service.orchestrator import LogReader, Sweeps, Timers, Watches, log_ends
from manager_service.orchestrator.bells import Bell, Bells
from manager_service.orchestrator.event_pages import EventPages
from manager_service.progress import ProgressHub
from tests.unit.manager_doubles import CHILD_ID, NOW, PARENT_ID, CountedIds, StillClock, child_job, parent_job


async def until(check: Callable[[], bool], *, seconds: float = 3) -> None:
    async with asyncio.timeout(seconds):
        while not check():  # noqa: ASYNC110 - what is waited for rings nothing
            await asyncio.sleep(0.005)


class UpkeepStore:
    """Does upkeep as it is told, and keeps what was asked of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.expired = [0]
        self.pruned = [0]
        self.batches: dict[str, int] = {}
        self.failures = 0
        self.due: list[int | None] = []
        self.overdue = [0]

    def _next(self, name: str, answers: list[int]) -> int:
        self.asked.append(name)
        return answers.pop(0) if len(answers) > 1 else answers[0]

    async def mark_alive(self) -> None:
        self.asked.append("mark_alive")

    async def expire_leases(self, *, limit: int) -> int:
        return self._next("expire_leases", self.expired)

    async def prune(self, *, age: int, limit: int) -> int:
        return self._next(f"prune {age}", self.pruned)

    async def trim_events(self, *, keep: int, limit: int) -> int:
        return self._next(f"trim_events {keep}", [0])

    async def prune_sessions(self, *, age: int) -> int:
        return self._next("prune_sessions", [0])

    async def prune_durations(self, *, age: int, limit: int) -> int:
        return self._next("prune_durations", [0])

    async def ending_parent_jobs(self) -> tuple[str, ...]:
        return tuple(self.batches)

    async def sweep(self, parent_job_id: str, *, limit: int) -> bool:
        self.asked.append(f"sweep {parent_job_id}")
        if self.failures:
            self.failures -= 1
            raise StoreUnavailableError("away")
        left = self.batches.get(parent_job_id)
        if left is None:
            raise ParentJobNotFoundError(parent_job_id)
        self.batches[parent_job_id] = left - 1
        if left == 1:
            del self.batches[parent_job_id]
        return left > 1

    async def release_due(self) -> int:
        return self._next("release_due", [0])

    async def fail_overdue(self, *, limit: int) -> int:
        return self._next("fail_overdue", self.overdue)

    async def next_available(self) -> int | None:
        self.asked.append("next_available")
        return self.due.pop(0) if self.due else None


@pytest.fixture
def store() -> Any:
    return UpkeepStore()


class TestLoop:
    async def test_it_turns_until_it_is_stopped(self) -> None:
        turns: list[None] = []

        async def body() -> None:
            turns.append(None)

        loop = Loop("turning", body, every=MILLISECOND)
        loop.start()
        await until(lambda: len(turns) > 3)
        await loop.stop()
        after = len(turns)
        await asyncio.sleep(0.02)

        assert len(turns) == after

    async def test_a_failure_does_not_end_it_and_is_logged_under_its_name(self) -> None:
        turns: list[None] = []

        async def body() -> None:
            turns.append(None)
            if len(turns) == 1:
                raise RuntimeError("a defect")
            if len(turns) == 2:
                raise StoreUnavailableError("away")

        loop = Loop("failing", body)
        with capture_logs() as lines:
            loop.start()
            await until(lambda: len(turns) > 3)
            await loop.stop()

        told = [(line["loop"], line["log_level"], line["failures"]) for line in lines]
        assert told == [("failing", "error", 1), ("failing", "warning", 2)]

    async def test_a_stop_is_prompt_and_waits_for_the_turn(self) -> None:
        ended = asyncio.Event()

        async def body() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()

        loop = Loop("slow", body)
        loop.start()
        await asyncio.sleep(0)
        await loop.stop()
        await loop.stop()

        assert ended.is_set()


class TestHousekeeping:
    async def test_it_marks_expires_and_retains(self, store: Any) -> None:
        keeping = Housekeeping(store, timing=Timing(), retention=7)

        keeping.start()
        await until(lambda: "prune_durations" in store.asked)
        await keeping.stop()

        assert set(store.asked) == {
            "mark_alive",
            "expire_leases",
            "prune 7",
            "trim_events 10000",
            "prune_sessions",
            "prune_durations",
        }

    async def test_it_tells_once_that_the_store_is_away_and_once_that_it_is_back(self, store: Any) -> None:
        told: list[bool] = []
        answers = [None, StoreUnavailableError("no server"), StoreUnavailableError("no server"), None, None]

        async def mark_alive() -> None:
            answer = answers.pop(0) if len(answers) > 1 else None
            if answer:
                raise answer

        async def tell(there: bool) -> None:
            told.append(there)

        store.mark_alive = mark_alive
        keeping = Housekeeping(
            store, timing=replace(Timing(), heartbeat_interval=10 * MILLISECOND), retention=7, tell=tell
        )

        with capture_logs() as lines:
            keeping.start()
            await until(lambda: len(answers) == 1)
            await keeping.stop()

        assert told == [False, True]
        assert [line["event"] for line in lines if line["event"].startswith("the job store")] == [
            "the job store is away; no leases are granted",
            "the job store is back",
        ]

    async def test_it_goes_on_while_pieces_are_full(self, store: Any) -> None:
        store.expired = [1_000, 1_000, 3, 0]
        keeping = Housekeeping(store, timing=Timing(), retention=7)

        with capture_logs() as lines:
            keeping.start()
            await until(lambda: "prune_sessions" in store.asked)
            await keeping.stop()

        assert store.asked.count("expire_leases") == 3
        assert [line["rows"] for line in lines if line["event"] == "leases expired"] == [2_003]


class TestSweeps:
    async def test_parents_take_turns_until_nothing_is_left(self, store: Any) -> None:
        store.batches = {"a": 2, "b": 3}
        sweeps = Sweeps(store)
        turning = asyncio.create_task(sweeps.turn())

        await until(lambda: not store.batches)
        turning.cancel()

        assert store.asked == ["sweep a", "sweep b", "sweep a", "sweep b", "sweep b"]

    async def test_a_hint_wakes_it(self, store: Any) -> None:
        sweeps = Sweeps(store)
        turning = asyncio.create_task(sweeps.turn())
        await asyncio.sleep(0)

        sweeps.add(["gone"])
        await turning
        store.batches = {"a": 1}
        turning = asyncio.create_task(sweeps.turn())
        await until(lambda: not store.batches)
        turning.cancel()

        assert store.asked[:2] == ["sweep gone", "sweep a"]

    async def test_what_failed_is_tried_again(self, store: Any) -> None:
        store.failures = 1
        store.batches = {"a": 1}
        sweeps = Sweeps(store)
        with pytest.raises(StoreUnavailableError):
            await sweeps.turn()

        turning = asyncio.create_task(sweeps.turn())
        await until(lambda: not store.batches)
        turning.cancel()

        assert store.asked == ["sweep a", "sweep a"]


class TestTimers:
    async def test_it_sleeps_until_the_next_due_time(self, store: Any) -> None:
        store.due = [50 * MILLISECOND]

        begin = asyncio.get_running_loop().time()
        await Timers(store).turn()

        assert 0.05 <= asyncio.get_running_loop().time() - begin < 5
        assert store.asked == ["release_due", "fail_overdue", "next_available"]

    @pytest.mark.parametrize(("soon", "within"), [(True, 0.5), (False, 5.0)])
    async def test_a_change_wakes_it(self, store: Any, soon: bool, within: float) -> None:
        store.due = [60 * SECOND]
        timers = Timers(store)
        turning = asyncio.create_task(timers.turn())
        await asyncio.sleep(0.01)

        timers.look(soon=soon)

        await asyncio.wait_for(turning, within)

    async def test_many_changes_wake_it_once_and_the_nearest_counts(self, store: Any) -> None:
        store.due = [60 * SECOND]
        timers = Timers(store)
        turning = asyncio.create_task(timers.turn())

        for _ in range(100):
            timers.look(soon=False)
        timers.look(soon=True)

        await asyncio.wait_for(turning, 0.5)
        again = asyncio.create_task(timers.turn())
        await asyncio.sleep(1.2)
        assert not again.done()
        again.cancel()

    async def test_overdue_children_end_in_batches(self, store: Any) -> None:
        store.overdue, store.due = [1_000, 5, 0], [0]

        with capture_logs() as lines:
            await Timers(store).turn()

        assert [line["children"] for line in lines] == [1_005]

    async def test_what_is_due_but_anothers_does_not_make_it_spin(self, store: Any) -> None:
        store.due = [0]

        begin = asyncio.get_running_loop().time()
        await Timers(store).turn()

        assert asyncio.get_running_loop().time() - begin > 0.4


class TestEnds:
    def test_an_end_is_one_line(self) -> None:
        ended = replace(
            parent_job(ParentJobState.PARTIALLY_COMPLETED),
            counts=Counts(completed=3, failed=1),
            start_time=NOW,
            end_time=NOW + 1_500 * MILLISECOND,
        )

        with capture_logs() as lines:
            log_ends([ended])

        assert lines == [
            {
                "event": "parent job ended",
                "log_level": "info",
                "parent_job_id": PARENT_ID,
                "name": "n",
                "state": "partially_completed",
                "children": 4,
                "completed": 3,
                "failed": 1,
                "cancelled": 0,
                "skipped": 0,
                "seconds": 1.5,
            }
        ]

    def test_one_that_never_began_took_no_time(self) -> None:
        with capture_logs() as lines:
            log_ends([replace(parent_job(ParentJobState.CANCELLED), end_time=NOW)])

        assert lines[0]["seconds"] == 0


class TestBells:
    async def test_a_ring_before_the_wait_is_kept(self) -> None:
        bell = Bell()
        bell.ring()

        await asyncio.wait_for(bell.wait(None), 1)

    async def test_only_who_follows_is_rung(self) -> None:
        bells = Bells(CountedIds())
        with bells.hang("a") as one, bells.hang("a") as other, bells.hang("b") as third:
            bells.ring(["a", "c"])

            await asyncio.wait_for(asyncio.gather(one.wait(None), other.wait(None)), 1)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(third.wait(None), 0.02)
        bells.ring(["a"])

    async def test_many_look_again_seldom(self) -> None:
        bells = Bells(CountedIds())
        alone = bells.patience()
        many = [bells.hang(str(number)) for number in range(2_000)]
        for hung in many:
            hung.__enter__()

        assert (alone, bells.patience()) == (1.0, 10.0)

    async def test_one_who_is_alone_is_rung_at_once_and_once_more_for_all_that_follows(self) -> None:
        bells = Bells(CountedIds())
        with bells.hang("a") as bell:
            bells.ring(["a"])
            await asyncio.wait_for(bell.wait(None), 0.01)
            begin = asyncio.get_running_loop().time()
            for _ in range(3):
                bells.ring(["a"])
            await asyncio.wait_for(bell.wait(None), 1)
            waited = asyncio.get_running_loop().time() - begin
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(bell.wait(None), 0.05)

        assert 0.02 < waited < 0.5

    async def test_of_many_those_of_one_key_are_rung_together_after_a_pause(self) -> None:
        bells = Bells(CountedIds())
        with ExitStack() as stack:
            one, other, *_ = [stack.enter_context(bells.hang("a")) for _ in range(400)]
            bells.ring(["a"])
            await asyncio.wait_for(asyncio.gather(one.wait(None), other.wait(None)), 0.05)
            bells.ring(["a"])
            bells.ring(["a"])

            with pytest.raises(TimeoutError):
                await asyncio.wait_for(one.wait(None), 0.05)
            await asyncio.wait_for(asyncio.gather(one.wait(None), other.wait(None)), 1)

    async def test_a_stop_waits_for_no_pause(self) -> None:
        bells = Bells(CountedIds())
        with ExitStack() as stack:
            bell, *_ = [stack.enter_context(bells.hang("a")) for _ in range(2_000)]
            bells.ring(["a"])
            await bell.wait(None)
            bells.ring(["a"])

            bells.stop()

            await asyncio.wait_for(bell.wait(None), 0.2)

    async def test_a_mark_stays_until_something_happens_or_nobody_is_there(self) -> None:
        bells = Bells(CountedIds())
        with bells.hang("a"):
            first = bells.mark("a")
            assert bells.mark("a") is first
            bells.ring(["a"])
            second = bells.mark("a")
        with bells.hang("a"):
            third = bells.mark("a")

        assert len({id(first), id(second), id(third)}) == 3
        assert bells.mark("b") is not bells.mark("b")

    async def test_a_stop_rings_all_and_refuses(self) -> None:
        bells = Bells(CountedIds())
        with bells.hang("a") as bell:
            bells.stop()

            await asyncio.wait_for(bell.wait(None), 1)
            with pytest.raises(ShuttingDownError):
                bells.check()


class PagedEvents:
    """A store that notes which pages were read, and hands them out when it is told to."""

    def __init__(self) -> None:
        self.read: list[int] = []
        self.open = asyncio.Event()

    async def events(self, _: str, *, after: int, limit: int) -> EventPage:
        self.read.append(after)
        await self.open.wait()
        return EventPage(events=(), trimmed=False, last_sequence=after, final=False)


class TestEventPages:
    @pytest.fixture
    def store(self) -> Any:
        return PagedEvents()

    async def test_those_who_ask_at_once_share_a_page(self, store: Any) -> None:
        bells = Bells(CountedIds())
        pages = EventPages(store, bells)
        with bells.hang("p"):
            asked = [asyncio.ensure_future(pages.after("p", 3)) for _ in range(3)]
            await asyncio.sleep(0)
            asked.pop().cancel()
            store.open.set()

            (_, one), (_, other) = await asyncio.gather(*asked)

        assert store.read == [3]
        assert one is other

    async def test_what_happened_since_is_read_anew(self, store: Any) -> None:
        bells = Bells(CountedIds())
        pages = EventPages(store, bells)
        store.open.set()
        with bells.hang("p"):
            await pages.after("p", 3)
            bells.ring(["p"])
            await pages.after("p", 3)
            await pages.after("p", 4)
        with bells.hang("p"):
            await pages.after("p", 4)

        assert store.read == [3, 3, 4, 4]

    async def test_a_page_is_old_after_half_a_second(self, store: Any) -> None:
        bells = Bells(CountedIds())
        pages = EventPages(store, bells)
        store.open.set()
        with bells.hang("p"):
            await pages.after("p", 3)
            await asyncio.sleep(0.55)
            await pages.after("p", 3)

        assert store.read == [3, 3]

    async def test_pages_that_are_old_are_forgotten(self, store: Any) -> None:
        bells = Bells(CountedIds())
        pages = EventPages(store, bells)
        store.open.set()
        with bells.hang("p"), bells.hang("q"), bells.hang("r"):
            await asyncio.gather(pages.after("p", 3), pages.after("q", 3))
            await asyncio.sleep(0.55)
            await pages.after("r", 3)

        assert list(pages._readings) == ["r"]

    async def test_pages_of_many_parent_jobs_are_not_kept_for_ever(self, store: Any) -> None:
        bells = Bells(CountedIds())
        pages = EventPages(store, bells)
        store.open.set()
        with ExitStack() as stack:
            for number in range(1_001):
                stack.enter_context(bells.hang(str(number)))
                await pages.after(str(number), 1)
            await pages.after("0", 1)

        assert len(store.read) == 1_002


class TestReaders:
    async def test_progress_of_a_child_that_is_gone_is_passed_over(self) -> None:
        class Gone:
            final = False

            async def events(self, *_: Any, **__: Any) -> EventPage:
                return EventPage(events=(), trimmed=False, last_sequence=1, final=self.final)

            async def child_job(self, child_job_id: str) -> Any:
                raise ChildJobNotFoundError(child_job_id)

        gone: Any = Gone()
        hub, bells = ProgressHub(StillClock()), Bells(CountedIds())
        watching = asyncio.ensure_future(_read(Watches(gone, hub, bells).watch("p", 1)))
        await asyncio.sleep(0)
        hub.publish("p", "c", 1, Progress(phase="copy"))
        await asyncio.sleep(0.01)
        gone.final = True
        bells.ring(["p"])

        assert await watching == []

    async def test_no_progress_of_an_attempt_follows_the_event_of_its_end(self) -> None:
        class Ending:
            untold: tuple[Event, ...] = (_over(2, attempt=1),)
            final = False

            async def events(self, *_: Any, **__: Any) -> EventPage:
                told, self.untold = self.untold, ()
                return EventPage(events=told, trimmed=False, last_sequence=2, final=self.final)

            async def child_job(self, _: str) -> Any:
                return child_job(), ()

        ending: Any = Ending()
        clock, bells = StillClock(), Bells(CountedIds())
        hub = ProgressHub(clock)
        watching = asyncio.ensure_future(_read(Watches(ending, hub, bells).watch("p", 1)))
        await asyncio.sleep(0.01)
        for attempt, phase in ((1, "late"), (2, "copy")):
            hub.publish("p", CHILD_ID, attempt, Progress(phase=phase))
            await asyncio.sleep(0.01)
            clock.steady += SECOND
        ending.final = True
        bells.ring(["p"])

        batch, *progress = await watching
        assert isinstance(batch, Batch)
        assert batch.events == (_over(2, attempt=1),)
        assert [(told.child_job_id, told.progress.phase) for told in progress] == [(CHILD_ID, "copy")]

    async def test_a_follower_of_a_log_is_let_go_at_a_stop(self) -> None:
        class Empty:
            async def logs(self, *_: Any, **__: Any) -> LogPage:
                return LogPage(attempt=0, offset=0, entries=(), finished=False)

            async def child_job(self, _: str) -> Any:
                return child_job(), ()

        empty: Any = Empty()
        bells = Bells(CountedIds())
        following = asyncio.ensure_future(
            _read(LogReader(empty, bells).read("c", attempt=0, offset=0, follow=True))
        )
        await asyncio.sleep(0.01)

        bells.stop()

        with pytest.raises(ShuttingDownError):
            await following


def _over(sequence: int, *, attempt: int) -> Event:
    change = ChildJobChange(
        child_job_id=CHILD_ID,
        operation="vacuum",
        target="app",
        object=None,
        previous_state=ChildJobState.RUNNING,
        state=ChildJobState.PENDING,
        attempts=attempt,
        version=3,
        verdict=None,
        reason="",
    )
    return Event(sequence=sequence, time=NOW, change=change)


async def _read(stream: Any) -> list[Any]:
    return [item async for item in stream]
