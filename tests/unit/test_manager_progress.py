import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from manager_service.domain.model import SECOND, ChildJob, Progress, RunningProgress
from manager_service.progress import KEPT, MAX_KEPT, MAX_PASSED, ProgressHub, ProgressLooks
from tests.unit.manager_doubles import CountedIds, StillClock, child_job


def copied(done: int) -> Progress:
    return Progress(phase="copy", done=done)


class TestProgressHub:
    def test_a_follower_is_rung_and_told(self) -> None:
        hub, rings = ProgressHub(StillClock()), list[None]()
        with hub.follow("p", lambda: rings.append(None)) as follower:
            hub.publish("p", "c", 1, copied(1))
            hub.publish("other", "c2", 1, copied(1))

            assert [(news.child_job_id, news.progress) for news in follower.due()] == [("c", copied(1))]
            assert len(rings) == 1
            assert follower.wait() is None

    def test_of_one_child_the_latest_is_told_once_a_second(self) -> None:
        clock = StillClock()
        hub = ProgressHub(clock)
        with hub.follow("p", lambda: None) as follower:
            hub.publish("p", "c", 1, copied(1))
            follower.due()
            hub.publish("p", "c", 1, copied(2))
            hub.publish("p", "c", 1, copied(3))

            assert follower.due() == ()
            assert follower.wait() == SECOND
            clock.steady += SECOND
            assert follower.wait() == 0
            assert [news.progress for news in follower.due()] == [copied(3)]

    def test_the_same_again_is_no_news(self) -> None:
        hub = ProgressHub(StillClock())
        hub.publish("p", "c", 1, copied(1))
        with hub.follow("p", lambda: None) as follower:
            hub.publish("p", "c", 1, copied(1))

            assert follower.due() == ()

    def test_who_no_longer_follows_is_forgotten(self) -> None:
        hub, rings = ProgressHub(StillClock()), list[None]()
        with hub.follow("p", lambda: None), hub.follow("p", lambda: rings.append(None)):
            pass

        hub.publish("p", "c", 1, copied(1))

        assert not rings

    def test_an_older_attempt_is_no_news(self) -> None:
        hub = ProgressHub(StillClock())
        with hub.follow("p", lambda: None) as follower:
            hub.publish("p", "c", 2, copied(1))
            hub.publish("p", "c", 1, copied(9))

            assert [news.progress for news in follower.due()] == [copied(1)]

    def test_only_so_many_are_compared(self) -> None:
        hub = ProgressHub(StillClock())
        for number in range(MAX_KEPT + 1):
            hub.publish("p", str(number), 1, copied(1))

        with hub.follow("p", lambda: None) as follower:
            for number in (1, 0):
                hub.publish("p", str(number), 1, copied(1))

            assert [news.child_job_id for news in follower.due()] == ["0"]

    def test_what_is_not_told_again_for_long_is_forgotten(self) -> None:
        clock = StillClock()
        hub = ProgressHub(clock)
        for child in ("ended", "stuck"):
            hub.publish("p", child, 1, copied(1))
        clock.steady += KEPT
        hub.publish("p", "stuck", 1, copied(1))
        clock.steady += 1
        hub.publish("p", "new", 1, copied(1))

        with hub.follow("p", lambda: None) as follower:
            for child in ("ended", "stuck", "new"):
                hub.publish("p", child, 1, copied(1))

            assert [news.child_job_id for news in follower.due()] == ["ended"]


class TestAnAttemptThatIsOver:
    def test_what_was_not_told_of_it_yet_is_dropped(self) -> None:
        hub = ProgressHub(StillClock())
        with hub.follow("p", lambda: None) as follower:
            hub.publish("p", "c", 1, copied(1))
            hub.publish("p", "d", 2, copied(2))
            for child in ("c", "d", "unknown"):
                hub.passed("p", child, 2)

            assert [news.child_job_id for news in follower.due()] == ["d"]

    def test_what_comes_of_it_late_is_not_told(self) -> None:
        hub = ProgressHub(StillClock())
        with hub.follow("p", lambda: None) as follower:
            hub.passed("p", "c", 2)
            hub.passed("p", "c", 1)
            hub.publish("p", "c", 1, copied(1))
            assert follower.due() == ()

            hub.publish("p", "c", 2, copied(2))
            assert [news.progress for news in follower.due()] == [copied(2)]

    def test_only_the_newest_are_remembered(self) -> None:
        hub = ProgressHub(StillClock())
        with hub.follow("p", lambda: None) as follower:
            for number in range(MAX_PASSED + 1):
                hub.passed("p", str(number), 2)
            for number in range(2):
                hub.publish("p", str(number), 1, copied(1))

            assert [news.child_job_id for news in follower.due()] == ["0"]

    def test_where_nobody_follows_nothing_is_remembered(self) -> None:
        hub = ProgressHub(StillClock())
        hub.passed("p", "c", 2)

        with hub.follow("p", lambda: None) as follower:
            hub.publish("p", "c", 1, copied(1))

            assert [news.child_job_id for news in follower.due()] == ["c"]


def scanned(done: int, *, attempt: int = 1, expected: int | None = None) -> ChildJob:
    """Return a running child as it is read; it began when the clock was made."""
    told = Progress(phase="scan", done=done, total=100, unit="pages")
    return replace(child_job(attempts=attempt), progress=told, expected=expected)


def told_of(hub: ProgressHub, child: ChildJob) -> None:
    assert child.progress is not None
    hub.publish(child.parent_job_id, child.id, child.attempts, child.progress)


class TestTimeLeft:
    def test_it_is_told_from_how_fast_the_phase_goes(self) -> None:
        clock = StillClock()
        hub = ProgressHub(clock)
        told_of(hub, scanned(0))
        clock.steady += 10 * SECOND
        told_of(hub, scanned(25))
        clock.steady += 2 * SECOND

        assert hub.estimated(scanned(25, expected=500 * SECOND)).remaining == 28 * SECOND

    def test_before_there_is_a_pace_it_is_what_is_left_of_the_expected(self) -> None:
        clock = StillClock()
        hub = ProgressHub(clock)
        told_of(hub, scanned(5))
        clock.now += 60 * SECOND

        assert hub.estimated(scanned(5, expected=90 * SECOND)).remaining == 30 * SECOND
        assert hub.estimated(scanned(5, expected=50 * SECOND)).remaining is None
        assert hub.estimated(scanned(5)).remaining is None

    def test_of_one_that_told_no_progress_nothing_is_told(self) -> None:
        silent = replace(child_job(), expected=90 * SECOND)

        assert ProgressHub(StillClock()).estimated(silent) == silent

    def test_where_another_manager_is_told_each_look_tells_how_fast_it_goes(self) -> None:
        clock = StillClock()
        hub = ProgressHub(clock)
        # Its worker came here before, and went to the other manager then.
        told_of(hub, scanned(0))
        assert hub.estimated(scanned(10)).remaining is None
        clock.steady += 20 * SECOND

        assert hub.estimated(scanned(50)).remaining == 25 * SECOND

    def test_an_attempt_begins_anew(self) -> None:
        clock = StillClock()
        hub = ProgressHub(clock)
        told_of(hub, scanned(0))
        clock.steady += 10 * SECOND
        told_of(hub, scanned(25, attempt=2))

        assert hub.estimated(scanned(25, attempt=2)).remaining is None

    def test_however_often_it_is_told_no_more_is_kept(self) -> None:
        clock = StillClock()
        hub = ProgressHub(clock)
        told_of(hub, scanned(0))
        hub.estimated(scanned(1))
        gc.collect()
        before = len(gc.get_objects())

        for _ in range(1_000):
            clock.steady += SECOND
            told_of(hub, scanned(50))
            hub.estimated(scanned(51))
        gc.collect()

        assert len(gc.get_objects()) - before < 100


class Elsewhere:
    """A store with what workers told another manager."""

    def __init__(self, *told: RunningProgress) -> None:
        self.told = told
        self.asked: list[Sequence[str]] = []
        self.meanwhile: Callable[[], None] = lambda: None
        self.store: Any = self

    async def progress(self, parent_job_ids: Sequence[str]) -> tuple[RunningProgress, ...]:
        self.asked.append(parent_job_ids)
        self.meanwhile()
        return self.told


def running(child_job_id: str, done: int, *, attempt: int = 1) -> RunningProgress:
    return RunningProgress(parent_job_id="p", child_job_id=child_job_id, attempt=attempt, progress=copied(done))


class TestProgressLooks:
    async def test_who_follows_here_is_told_what_was_told_elsewhere(self) -> None:
        hub, elsewhere = ProgressHub(StillClock()), Elsewhere(running("c", 1))
        with hub.follow("p", lambda: None) as follower, hub.follow("o", lambda: None) as other:
            await ProgressLooks(elsewhere.store, hub, CountedIds()).turn()

            assert [(news.child_job_id, news.progress) for news in follower.due()] == [("c", copied(1))]
            assert other.due() == ()
        assert elsewhere.asked == [["o", "p"]]

    async def test_while_nobody_follows_the_store_is_not_asked(self) -> None:
        hub, elsewhere = ProgressHub(StillClock()), Elsewhere()

        await ProgressLooks(elsewhere.store, hub, CountedIds()).turn()

        assert elsewhere.asked == []

    async def test_what_a_worker_tells_here_meanwhile_is_newer(self) -> None:
        hub, elsewhere = ProgressHub(StillClock()), Elsewhere(running("c", 1), running("d", 1))
        elsewhere.meanwhile = lambda: hub.publish("p", "c", 1, copied(2))
        with hub.follow("p", lambda: None) as follower:
            await ProgressLooks(elsewhere.store, hub, CountedIds()).turn()

            assert {news.child_job_id: news.progress for news in follower.due()} == {
                "c": copied(2),
                "d": copied(1),
            }

    async def test_managers_look_at_different_times(self) -> None:
        begun = time.monotonic()
        await ProgressLooks(Elsewhere().store, ProgressHub(StillClock()), CountedIds(0.25)).turn()

        assert 0.75 <= time.monotonic() - begun < 1.2
