"""How long children will take, and how that is told."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from manager_service.client.estimates import Estimate, in_all, time_left
from manager_service.client.words import about
from overhaul.v1 import job_pb2
from tests.client_doubles import wire

NOW = datetime(2026, 1, 31, 4, 5, 16, tzinfo=UTC)
"""Ten seconds after `wire.at(0)`."""


def child(
    seconds: float | None = None, *, on: str = "app", of: str | None = None, **fields: Any
) -> job_pb2.ChildJob:
    given = {} if seconds is None else {"expected_duration": Duration(seconds=int(seconds))}
    return wire.child_job(target=on, object=of, **given, **fields)


def running(seconds: float | None = None, **fields: Any) -> job_pb2.ChildJob:
    """Return a child that has run for ten seconds."""
    return child(seconds, state=job_pb2.CHILD_JOB_STATE_RUNNING, start_time=wire.at(0), **fields)


def left(*children: job_pb2.ChildJob, **fields: Any) -> Estimate | None:
    return time_left(wire.parent_job(**fields), children, NOW)


def estimate(seconds: float, unknown: int = 0) -> Estimate:
    return Estimate(span=timedelta(seconds=seconds), unknown=unknown)


class TestInAll:
    def test_it_is_the_sum(self) -> None:
        assert in_all([child(2), child(3)]) == estimate(5)

    def test_what_is_not_known_is_counted(self) -> None:
        assert in_all([child(2), child(), child()]) == estimate(2, unknown=2)

    def test_of_nothing_known_there_is_none(self) -> None:
        assert in_all([child()]) is None
        assert in_all([]) is None

    def test_several_at_once_share_it(self) -> None:
        tables = [child(4, of=name) for name in "abcd"]

        assert in_all(tables, at_once=2) == estimate(8)

    def test_but_those_on_one_object_do_not(self) -> None:
        tables = [child(4, of="a"), child(4, of="a", operation="analyze"), child(1, of="b")]

        assert in_all(tables, at_once=3) == estimate(8)


class TestTimeLeft:
    def test_what_ran_is_taken_off(self) -> None:
        assert left(running(30), child(5)) == estimate(25)

    def test_it_goes_on_with_as_many_at_once(self) -> None:
        assert left(*(running(30, of=name) for name in "ab"), child(60, of="c"), child(20, of="d")) == estimate(60)
        assert left(*(running(30, of=name) for name in "ab"), *(child(20, of=name) for name in "cd")) == estimate(
            40
        )

    def test_of_one_that_takes_longer_nothing_is_left(self) -> None:
        assert left(running(5, of="a"), child(3, of="b")) == estimate(3)
        assert left(running(5)) is None

    def test_a_leased_one_has_all_before_it(self) -> None:
        assert left(child(5, state=job_pb2.CHILD_JOB_STATE_LEASED)) == estimate(5)

    def test_one_that_waits_for_another_attempt_has_all_before_it(self) -> None:
        assert left(running(30, of="a"), child(50, of="b", start_time=wire.at(0))) == estimate(70)

    def test_a_clock_that_is_behind_takes_nothing_off(self) -> None:
        ahead = running(30)
        ahead.start_time.CopyFrom(wire.at(60))

        assert left(ahead) == estimate(30)

    def test_what_ended_does_not_count(self) -> None:
        assert left(running(30), wire.completed_child_job(), wire.failed_child_job()) == estimate(20)

    def test_where_half_is_known_the_rest_is_told(self) -> None:
        assert left(running(30, of="a"), child(of="b")) == estimate(20, unknown=1)

    def test_where_less_is_known_there_is_none(self) -> None:
        assert left(running(30, of="a"), child(of="b"), child(of="c")) is None

    @pytest.mark.parametrize(
        "fields",
        [
            {"paused": True},
            {"state": job_pb2.PARENT_JOB_STATE_PLANNING},
            {"state": job_pb2.PARENT_JOB_STATE_CANCELLING},
            {"state": job_pb2.PARENT_JOB_STATE_COMPLETED},
        ],
    )
    def test_a_job_that_does_not_run_has_none(self, fields: dict[str, Any]) -> None:
        assert left(running(30), **fields) is None

    def test_one_of_which_nothing_runs_has_none(self) -> None:
        assert left(child(30)) is None


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.4, "less than a second"),
        (1, "about 1 s"),
        (59.4, "about 59 s"),
        (59.6, "about 1 min"),
        (330, "about 6 min"),
        (3_599, "about 1 h"),
        (9_000, "about 2 h 30 min"),
        (100_000, "about 27 h 47 min"),
    ],
)
def test_a_span_is_told_as_roughly_as_it_is_known(seconds: float, told: str) -> None:
    assert about(timedelta(seconds=seconds)) == told
