from manager_service.domain.model import SECOND, Progress
from manager_service.progress import KEPT, MAX_KEPT, ProgressHub
from tests.unit.manager_doubles import StillClock


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

    def test_the_latest_is_of_one_attempt(self) -> None:
        hub = ProgressHub(StillClock())
        hub.publish("p", "c", 1, copied(1))

        assert hub.latest("c", 1) == copied(1)
        assert hub.latest("c", 2) is None
        assert hub.latest("d", 1) is None

    def test_only_so_many_are_kept(self) -> None:
        hub = ProgressHub(StillClock())
        for number in range(MAX_KEPT + 1):
            hub.publish("p", str(number), 1, copied(1))

        assert hub.latest("0", 1) is None
        assert hub.latest("1", 1) == copied(1)

    def test_what_is_not_told_again_for_long_is_forgotten(self) -> None:
        clock = StillClock()
        hub = ProgressHub(clock)
        hub.publish("p", "ended", 1, copied(1))
        hub.publish("p", "stuck", 1, copied(1))
        clock.steady += KEPT
        hub.publish("p", "stuck", 1, copied(1))
        clock.steady += 1
        hub.publish("p", "new", 1, copied(1))

        assert hub.latest("ended", 1) is None
        assert hub.latest("stuck", 1) == hub.latest("new", 1) == copied(1)
