"""What samples of waits add up to, and what is told of them."""

import pytest

from tests.integration.operations.doubles import RecordingControl
from worker_service.domain.lock_waits import BLOCKING, TOLD, LockWaiter, LockWaits, Waiting
from worker_service.domain.outcome import Outcome, Result
from worker_service.domain.settlement import with_waits

BILLING = LockWaiter(application="billing", user="app", object="public.orders", lock_mode="RowExclusiveLock")


@pytest.fixture
def waits() -> LockWaits:
    watched = LockWaits(0.5)
    watched.begin()
    return watched


class TestMeasures:
    def test_without_a_look_nothing_is_known(self) -> None:
        waits = LockWaits(0.5)

        assert waits.measures() == {}
        assert with_waits(Result(outcome=Outcome.SKIPPED), waits, _refuse) == Result(outcome=Outcome.SKIPPED)

    def test_what_was_watched_and_not_seen_is_0(self, waits: LockWaits) -> None:
        assert waits.measures() == {
            "lock_wait_seconds": 0.0,
            "blocking_seconds": 0.0,
            "blocked_sessions": 0.0,
            "lock_sample_seconds": 0.5,
        }

    def test_a_wait_whose_beginning_is_known_counts_once(self, waits: LockWaits) -> None:
        for seconds in (0.3, 0.8, 1.3):
            waits.own([Waiting(session=1, begun=100.0, seconds=seconds)])
        waits.own([Waiting(session=1, begun=200.0, seconds=0.25)])

        assert waits.measures()["lock_wait_seconds"] == 1.55

    def test_one_whose_beginning_is_not_known_counts_by_the_sample(self, waits: LockWaits) -> None:
        for _ in range(3):
            waits.own([Waiting(session=1, seconds=0.5)])

        assert waits.measures()["lock_wait_seconds"] == 1.5

    def test_the_seconds_of_all_sessions_are_added(self, waits: LockWaits) -> None:
        for seconds in (1.0, 2.0):
            waits.others(Waiting(session=number, begun=1.0, seconds=seconds, who=BILLING) for number in (7, 8, 9))

        assert waits.measures()["blocking_seconds"] == 6.0
        assert waits.measures()["blocked_sessions"] == 3.0

    def test_what_cannot_be_known_is_not_told(self, waits: LockWaits) -> None:
        waits.unknown("No right to see it.", BLOCKING)

        assert waits.measures() == {"lock_wait_seconds": 0.0, "lock_sample_seconds": 0.5}

    def test_after_a_look_that_failed_nothing_is_told(self, waits: LockWaits) -> None:
        waits.unknown("The connection broke.")

        assert waits.measures() == {}


class TestWaiters:
    def test_those_of_one_name_are_told_together_the_longest_first(self, waits: LockWaits) -> None:
        cron = LockWaiter(application="cron")
        waits.others([Waiting(session=1, begun=1.0, seconds=1.0, who=cron)])
        waits.others(Waiting(session=number, begun=1.0, seconds=2.0, who=BILLING) for number in (2, 3))

        [first, second] = waits.waiters()
        assert (first.application, first.seconds, first.sessions) == ("billing", 4.0, 2)
        assert (second.application, second.seconds, second.sessions) == ("cron", 1.0, 1)

    def test_they_are_few_whoever_comes_and_the_sum_is_of_all(self, waits: LockWaits) -> None:
        for number in range(500):
            who = LockWaiter(application=f"app {number}")
            waits.others([Waiting(session=number, begun=1.0, seconds=1.0 + number, who=who)])

        assert [one.application for one in waits.waiters()] == [f"app {499 - n}" for n in range(TOLD)]
        assert waits.measures()["blocking_seconds"] == sum(1.0 + number for number in range(500))

    def test_their_names_are_short_and_on_one_line(self, waits: LockWaits) -> None:
        who = LockWaiter(application="a\nb\x1b[31m" + "x" * 500, user="\u202eapp")
        waits.others([Waiting(session=1, seconds=1.0, who=who)])

        [found] = waits.waiters()
        assert found.application.startswith("a?b?[31mxxx")
        assert len(found.application) == 100
        assert found.user == "?app"


class TestTell:
    def test_the_log_says_how_long_and_who(self, waits: LockWaits) -> None:
        waits.own([Waiting(session=1, begun=1.0, seconds=2.0)])
        waits.others(Waiting(session=number, begun=1.0, seconds=2.0, who=BILLING) for number in (2, 3))
        waits.others([Waiting(session=4, begun=1.0, seconds=1.0)])
        control = RecordingControl()

        result = with_waits(Result(outcome=Outcome.COMPLETED, after={"pages": 1.0}), waits, control.log)

        assert control.lines == [
            ("info", "It waited for locks of others for 2.0 s (sampled every 0.5 s)."),
            ("warning", "Its locks kept others waiting: 3 sessions, 5.0 s in all (sampled every 0.5 s)."),
            ("info", "Waited for it: billing (app) for 4.0 s for public.orders (RowExclusiveLock), 2 sessions."),
            ("info", "Waited for it: a session without a name for 1.0 s."),
        ]
        assert result.after["pages"] == 1.0
        assert result.after["blocking_seconds"] == 5.0
        assert [one.application for one in result.waiters] == ["billing", ""]

    def test_why_something_is_not_known_is_told_once(self, waits: LockWaits) -> None:
        for _ in range(2):
            waits.unknown("No right to see it.", BLOCKING)
        control = RecordingControl()

        waits.tell(control.log)

        assert control.lines == [("info", "No right to see it.")]


def _refuse(level: str, message: str) -> None:
    raise AssertionError((level, message))
