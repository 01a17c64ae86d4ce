"""How long a running operation has left, by a clock that is told."""

import pytest

from manager_service.domain.model import SECOND, Progress
from manager_service.domain.pace import LEAST, Pace, expected_left


def scanned(done: int | None, total: int | None = 100, *, phase: str = "scan", unit: str = "pages") -> Progress:
    return Progress(phase=phase, done=done, total=total, unit=unit)


def paced(*told: tuple[int, Progress], attempt: int = 1) -> Pace:
    """Return the pace of what was told at so many seconds."""
    (begin, first), *rest = told
    pace = Pace.begun(attempt, first, begin * SECOND)
    for second, progress in rest:
        pace = pace.told(attempt, progress, second * SECOND)
    return pace


def seconds_left(pace: Pace, now: float) -> float | None:
    left = pace.left(round(now * SECOND))
    return None if left is None else left / SECOND


class TestPace:
    def test_it_goes_on_as_fast_as_since_the_phase_was_first_told(self) -> None:
        pace = paced((10, scanned(20)), (15, scanned(25)), (20, scanned(40)))

        assert seconds_left(pace, 20) == 30

    def test_the_time_since_it_was_told_is_taken_off(self) -> None:
        pace = paced((0, scanned(0)), (10, scanned(50)))

        assert [seconds_left(pace, now) for now in (10, 13, 19.5)] == [10, 7, 0.5]

    def test_what_should_be_over_by_now_tells_nothing(self) -> None:
        pace = paced((0, scanned(0)), (10, scanned(50)))

        assert [seconds_left(pace, now) for now in (20, 21, 1_000)] == [None, None, None]

    def test_one_that_stands_still_has_longer_to_go_each_time_it_is_told(self) -> None:
        pace = paced((0, scanned(0)), (10, scanned(50)), (40, scanned(50)))

        assert seconds_left(pace, 40) == 40

    def test_a_phase_has_its_own_pace(self) -> None:
        pace = paced((0, scanned(0)), (10, scanned(90)), (20, scanned(0, phase="truncate")))
        assert seconds_left(pace, 20) is None

        assert seconds_left(pace.told(1, scanned(10, phase="truncate"), 25 * SECOND), 25) == 45

    def test_an_attempt_has_its_own_pace(self) -> None:
        pace = paced((0, scanned(0)), (10, scanned(50))).told(2, scanned(60), 20 * SECOND)

        assert seconds_left(pace, 20) is None

    @pytest.mark.parametrize("after", [scanned(5), scanned(70, unit="bytes")])
    def test_a_phase_that_begins_again_or_counts_anew_has_a_new_pace(self, after: Progress) -> None:
        pace = paced((0, scanned(10)), (10, scanned(60)), (20, after))

        assert seconds_left(pace, 20) is None

    def test_a_total_that_turns_out_larger_counts(self) -> None:
        pace = paced((0, scanned(0)), (10, scanned(50, 150)))

        assert seconds_left(pace, 10) == 20

    @pytest.mark.parametrize(
        "last",
        [scanned(None), scanned(50, None), scanned(0), scanned(100), scanned(120)],
        ids=["no done", "no total", "no growth", "all done", "more than all"],
    )
    def test_without_a_speed_or_an_end_nothing_is_told(self, last: Progress) -> None:
        assert seconds_left(paced((0, scanned(0)), (10, last)), 10) is None

    def test_a_first_sample_without_a_number_is_none(self) -> None:
        assert seconds_left(paced((0, scanned(None)), (10, scanned(50))), 10) is None
        assert seconds_left(paced((0, scanned(None)), (10, scanned(50)), (20, scanned(60))), 20) == 40

    def test_two_samples_close_together_are_no_pace(self) -> None:
        pace = Pace.begun(1, scanned(0), 0)

        assert pace.told(1, scanned(50), LEAST - 1).left(LEAST - 1) is None
        assert pace.told(1, scanned(50), LEAST).left(LEAST) == LEAST


class TestExpectedLeft:
    def test_what_ran_is_taken_off(self) -> None:
        assert expected_left(expected=60 * SECOND, begun=100 * SECOND, now=120 * SECOND) == 40 * SECOND

    def test_a_clock_that_is_behind_takes_nothing_off(self) -> None:
        assert expected_left(expected=60 * SECOND, begun=100 * SECOND, now=90 * SECOND) == 60 * SECOND

    @pytest.mark.parametrize("now", [160 * SECOND, 1_000 * SECOND])
    def test_of_one_that_takes_longer_than_expected_nothing_is_known(self, now: int) -> None:
        assert expected_left(expected=60 * SECOND, begun=100 * SECOND, now=now) is None

    def test_what_was_not_learned_or_has_not_begun_is_not_known(self) -> None:
        assert expected_left(expected=None, begun=100 * SECOND, now=120 * SECOND) is None
        assert expected_left(expected=60 * SECOND, begun=None, now=120 * SECOND) is None
