"""What the manager adds up of measures that it knows nothing of but their names."""

import pytest

from manager_service.domain.totals import MAX_WAITERS, NOTHING, LockWaiter, Totals, longest, totals_of


class TestTotalsOf:
    def test_an_attempt_without_measures_is_not_counted(self) -> None:
        assert totals_of({}, {}) == NOTHING

    @pytest.mark.parametrize(
        ("before", "after", "expected"),
        [
            ({"file_bytes": 9.0}, {"file_bytes": 4.0}, (1, 5.0, 0.0)),
            ({"file_bytes": 4.0}, {"file_bytes": 9.0}, (1, 0.0, 5.0)),
            ({"file_bytes": 9.0, "wal_bytes": 0.0}, {"file_bytes": 4.0, "wal_bytes": 8.0}, (1, 0.0, 3.0)),
            ({"file_bytes": 9.0, "wal_bytes": 7.0}, {"file_bytes": 4.0}, (1, 5.0, 0.0)),
            ({"file_bytes": 9.0, "size_bytes": 90.0}, {"file_bytes": 4.0, "size_bytes": 9.0}, (1, 5.0, 0.0)),
            ({"file_bytes": 9.0, "size_bytes": 90.0}, {"size_bytes": 9.0}, (1, 81.0, 0.0)),
            ({"file_bytes": 9.0}, {"pages": 1.0}, (0, 0.0, 0.0)),
        ],
    )
    def test_sizes_count_where_they_are_known_before_and_after(
        self, before: dict[str, float], after: dict[str, float], expected: tuple[int, float, float]
    ) -> None:
        found = totals_of(before, after)

        assert (found.sized, found.reclaimed, found.grown) == expected

    def test_a_worker_that_is_mad_makes_no_sum_infinite_or_negative(self) -> None:
        mad = totals_of({"size_bytes": 1e308}, {"size_bytes": -1e308, "lock_wait_seconds": 1e308})
        back = totals_of({}, {"lock_wait_seconds": -5.0, "blocking_seconds": -1.0})

        twice = mad.plus(mad).plus(back)

        assert twice.reclaimed == 2.0**61
        assert twice.lock_wait_seconds == 2.0**60
        assert (twice.waited, twice.blocked, twice.blocking_seconds) == (3, 1, 0.0)


class TestPlus:
    def test_nothing_changes_nothing(self) -> None:
        some = Totals(attempts=1)

        assert NOTHING.plus(some) is some
        assert some.plus(NOTHING) is some


class TestLongest:
    def test_there_are_few_and_the_longest_come_first(self) -> None:
        many = [LockWaiter(application=f"a{number}", seconds=number, sessions=1) for number in range(50)]

        found = longest(many)

        assert [one.seconds for one in found] == [49 - number for number in range(MAX_WAITERS)]

    def test_what_is_one_by_name_is_added(self) -> None:
        [found] = longest(LockWaiter(user="u", seconds=0.1, sessions=sessions) for sessions in (1, 4, 2))

        assert found == LockWaiter(user="u", seconds=0.3, sessions=4)
