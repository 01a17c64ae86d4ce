"""What people are told of a job in all, and of one child's measures."""

from typing import Any

import pytest
from rich.console import Console

from manager_service.client.summary import measure_table, totals_lines, waiter_lines
from overhaul.v1 import job_pb2
from tests.client_doubles import wire

DONE = [wire.completed_child_job()]


class TestTotalsLines:
    def test_before_the_first_report_there_is_nothing_to_tell(self) -> None:
        assert totals_lines(job_pb2.Totals(), DONE) == []

    @pytest.mark.parametrize(
        ("fields", "lines"),
        [
            (
                {},
                ["in all: reclaimed 3.0 MB", "locks: waited 0.5 s; whether others waited is not known"],
            ),
            (
                {"bytes_grown": 8192.0, "blocking_attempts": 1, "blocking_seconds": 0.0},
                [
                    "in all: reclaimed 3.0 MB, and 8.2 kB were added elsewhere",
                    "locks: waited 0.5 s; nobody was seen waiting for it",
                ],
            ),
            (
                {"attempts": 4, "sized_attempts": 2, "blocking_attempts": 3, "blocking_seconds": 12.5},
                [
                    "in all: reclaimed 3.0 MB (told by 2 of 4 attempts)",
                    (
                        "locks: waited 0.5 s (told by 1 of 4 attempts); "
                        "others were seen waiting for it for 12.5 s (told by 3 of 4 attempts)"
                    ),
                ],
            ),
            (
                {"sized_attempts": 0, "lock_wait_attempts": 0},
                ["in all: how many bytes were reclaimed is not known", "locks: how long it waited is not known"],
            ),
        ],
    )
    def test_what_is_not_known_is_not_told_as_0(self, fields: dict[str, Any], lines: list[str]) -> None:
        assert totals_lines(wire.totals(**fields), DONE) == lines

    def test_where_nothing_completed_what_changed_all_the_same_is_told(self) -> None:
        failed = [wire.failed_child_job(), wire.completed_child_job(operation="inspect")]

        assert totals_lines(wire.totals(), failed) == ["in all: reclaimed 3.0 MB"]
        assert totals_lines(wire.totals(bytes_reclaimed=0.0), failed) == []
        assert totals_lines(wire.totals(bytes_reclaimed=0.0), [*failed, *DONE])[0] == "in all: reclaimed 0 bytes"

    def test_who_waited_is_told_by_name(self) -> None:
        waiters = [wire.lock_waiter(), wire.lock_waiter(application="", sessions=1)]

        assert totals_lines(wire.totals(lock_waiters=waiters), DONE)[2:] == [
            "  billing (app) waited 12.5 s for public.orders (RowExclusiveLock), 3 sessions",
            "  app waited 12.5 s for public.orders (RowExclusiveLock)",
        ]


class TestWaiterLines:
    def test_names_cannot_steer_the_terminal(self) -> None:
        [line] = waiter_lines([job_pb2.LockWaiter(application="\x1b[31mred", seconds=1.0)])

        assert line == "  \\x1b[31mred waited 1.0 s"

    def test_one_without_any_name_is_a_session(self) -> None:
        assert waiter_lines([job_pb2.LockWaiter(seconds=1.0)]) == ["  a session without a name waited 1.0 s"]


class TestMeasureTable:
    def test_every_measure_is_there_also_where_one_side_is_missing(self) -> None:
        console = Console(width=80)
        with console.capture() as shown:
            console.print(measure_table(wire.completed_child_job()))

        rows = [line.split() for line in shown.get().splitlines()]
        assert ["file_bytes", "4.0", "MB", "1.0", "MB"] in rows
        assert ["free_pages", "750", "0"] in rows
        assert ["load", "0.5"] in rows
