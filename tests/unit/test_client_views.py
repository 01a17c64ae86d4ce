"""What a terminal shows of a job, while it runs and after."""

import io
import sys
from uuid import UUID

import pytest
from google.protobuf.duration_pb2 import Duration
from rich.console import Console

from manager_service.client import render
from manager_service.client.follow import Standing
from manager_service.client.views import APART, LIVE_ROWS, LiveView, PlainView, choose_view, sentence
from manager_service.client.words import how_far
from overhaul.v1 import job_pb2, job_service_pb2
from tests.client_doubles import wire

ROTTEN = "[red]app[/red]\x1b[2J"
SHOWN = "[red]app[/red]\\x1b[2J"


def screen(*, terminal: bool = False, width: int = 80) -> Console:
    return Console(
        file=io.StringIO(), force_terminal=terminal, width=width, markup=False, highlight=False, color_system=None
    )


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def change(**fields: object) -> job_service_pb2.ChildJobChange:
    return wire.child_event(4, **fields).event.child_job


class TestSentence:
    def test_a_child_that_waits_again_tells_why(self) -> None:
        again = change(state=job_pb2.CHILD_JOB_STATE_PENDING, reason="the target is busy", object="users")

        assert sentence(again) == "vacuum app.users: waiting (the target is busy)"

    def test_foreign_text_cannot_steer_the_terminal(self) -> None:
        assert sentence(change(target=ROTTEN)) == f"vacuum {SHOWN}: running"


class TestHowFar:
    def test_with_and_without_a_total(self) -> None:
        assert how_far(job_pb2.Progress(phase="copy", done=41, total=100)) == "copy 41 %"
        assert how_far(job_pb2.Progress(phase="copy", done=300, total=100)) == "copy 100 %"
        assert how_far(job_pb2.Progress(phase="scan", done=7, unit="pages")) == "scan 7 pages"
        assert how_far(job_pb2.Progress(phase="wait")) == "wait"

    def test_with_the_time_that_is_left(self) -> None:
        left = Duration(seconds=115)

        assert how_far(job_pb2.Progress(phase="copy", done=41, total=100, remaining=left)) == (
            "copy 41 %, about 2 min left"
        )
        assert how_far(job_pb2.Progress(remaining=left)) == "about 2 min left"


class TestPlainView:
    def test_a_line_per_change_and_none_for_progress_or_leases(self) -> None:
        console = screen()
        standing = Standing()

        with PlainView(console) as view:
            standing.take(wire.snapshot(wire.parent_job(counts=job_pb2.ChildJobCounts(total=2, pending=2))), view)
            standing.take(
                wire.child_event(
                    4,
                    previous_state=job_pb2.CHILD_JOB_STATE_PENDING,
                    state=job_pb2.CHILD_JOB_STATE_LEASED,
                    target=ROTTEN,
                ),
                view,
            )
            standing.take(wire.child_event(5, target=ROTTEN), view)
            standing.take(wire.progress(phase="copy"), view)
            standing.take(wire.completed_child_event(6), view)
            standing.take(wire.bulk_event(7, job_pb2.ChildJobCounts(total=2, completed=1, cancelled=1)), view)
            standing.take(wire.parent_event(8, wire.parent_job(paused=True)), view)
            standing.take(job_service_pb2.WatchParentJobResponse(), view)

        assert text_of(console).splitlines() == [
            "job running: 0 of 2 children ended",
            f"vacuum {SHOWN}: running",
            "vacuum app: completed, effective (freed 3 MB)",
            "job running (paused): 0 of 1 children ended",
        ]

    def test_who_waits_for_the_same_again_says_so_once(self) -> None:
        console = screen()
        standing = Standing()
        pending = {"state": job_pb2.CHILD_JOB_STATE_PENDING, "target": "app"}

        with PlainView(console) as view:
            for sequence, reason in enumerate(["busy", "busy", "busy", "locked", "busy"]):
                standing.take(wire.child_event(2 * sequence + 1, reason=reason, **pending), view)
                leased = {"state": job_pb2.CHILD_JOB_STATE_LEASED, "target": "app"}
                standing.take(wire.child_event(2 * sequence + 2, **leased), view)

        lines = [line for line in text_of(console).splitlines() if "waiting" in line]
        assert lines == [f"vacuum app: waiting ({reason})" for reason in ("busy", "locked", "busy")]

    def test_how_far_a_child_is_takes_a_line_from_time_to_time(self) -> None:
        console, seconds = screen(), [100.0]
        left = Duration(seconds=115)

        with PlainView(console, lambda: seconds[0]) as view:
            view.child(change(object="users"))
            for percent in range(2 * APART + 5):
                far = wire.progress(phase="copy", done=percent, total=100, remaining=left).progress
                far.object = "users"
                view.progress(far)
                seconds[0] += 1
            view.child(wire.completed_child_event(5, object="users").event.child_job)
            view.progress(wire.progress(phase="late").progress)

        assert text_of(console).splitlines() == [
            "vacuum app.users: running",
            f"vacuum app.users: copy {APART} %, about 2 min left",
            f"vacuum app.users: copy {2 * APART} %, about 2 min left",
            "vacuum app.users: completed, effective (freed 3 MB)",
        ]

    def test_one_that_ran_before_it_was_watched_is_told_too(self) -> None:
        console, seconds = screen(), [100.0]

        with PlainView(console, lambda: seconds[0]) as view:
            view.progress(wire.progress(phase="copy").progress)
            seconds[0] += APART
            view.progress(wire.progress(phase="scan", done=7, unit=ROTTEN).progress)

        assert text_of(console).splitlines() == [f"vacuum app: scan 7 {SHOWN}"]


class TestLiveView:
    def test_a_row_while_it_runs_and_a_line_that_stays(self) -> None:
        console = screen(terminal=True)

        with LiveView(console) as view:
            view.parent("running", job_pb2.ChildJobCounts(total=2, running=1))
            view.child(change(target=ROTTEN))
            view.progress(wire.progress(phase="copy", done=1, total=2).progress)
            view.progress(wire.progress(phase="scan").progress)
            view.child(wire.completed_child_event(5).event.child_job)
            view.child(wire.completed_child_event(6, child_job_id="unseen").event.child_job)
            view.say("cancelling")

        shown = text_of(console)
        assert "vacuum app: completed, effective (freed 3 MB)" in shown
        assert "job running" in shown
        assert "cancelling" in shown
        assert "\x1b[2J" not in shown

    def test_a_row_tells_the_time_that_is_left(self) -> None:
        console = screen(terminal=True)
        far = wire.progress(phase="scan", done=41, total=100, remaining=Duration(seconds=115)).progress
        far.object = "users"

        with LiveView(console) as view:
            view.progress(far)

        [row] = [line for line in text_of(console).splitlines() if "scan" in line]
        assert row.startswith("vacuum app.users ")
        assert "scan 41 %, about 2 min left" in row

    def test_of_very_many_children_only_some_have_a_row(self) -> None:
        console = screen(terminal=True)

        with LiveView(console) as view:
            for number in range(LIVE_ROWS + 5):
                view.child(change(child_job_id=str(number), target=f"t{number}"))
            view.progress(wire.progress(phase="copy", done=1, total=2).progress)

        assert f"t{LIVE_ROWS - 1} " in text_of(console)
        assert f"t{LIVE_ROWS} " not in text_of(console)

    def test_it_is_for_terminals(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert isinstance(choose_view(), PlainView)

        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
        assert isinstance(choose_view(), LiveView)


class TestTable:
    def test_before_and_after_fit_into_80_columns(self) -> None:
        children = [
            wire.completed_child_job(
                target="customers-production",
                before={"file_bytes": 4e6, "free_pages": 750.0, "stat_rows": 12.0},
                after={"file_bytes": 1e6, "free_pages": 0.0, "stat_rows": 15.0, "indexes_rebuilt": 7.0},
                verdict=job_pb2.VERDICT_PARTIALLY_EFFECTIVE,
            ),
            wire.failed_child_job(operation="reindex", object="users", before={"free_pages": 0.5}),
        ]
        console = screen()

        console.print(render.outcome_table(children))

        lines = text_of(console).splitlines()
        assert max(map(len, lines)) <= 80
        assert "partially" in text_of(console)
        for head in ("operation", "target", "result", "bytes", "indexes", "time"):
            assert head in text_of(console)

    def test_the_ids_of_a_list_are_whole_in_80_columns(self) -> None:
        parents = [wire.parent_job(id=str(UUID(int=number)), name="nightly maintenance") for number in (1, 2)]
        for parent in parents:
            parent.create_time.CopyFrom(wire.at(0))
            parent.start_time.CopyFrom(wire.at(0))
            parent.counts.failed = 3
        console = screen()

        console.print(render.parent_table(parents))

        lines = text_of(console).splitlines()
        assert max(map(len, lines)) <= 80
        assert all(any(parent.id in line for line in lines) for parent in parents)

    def test_columns_without_values_are_left_out(self) -> None:
        console = screen()

        console.print(render.outcome_table([wire.child_job()]))

        assert "free pages" not in text_of(console)
        assert "vacuum" in text_of(console)

    def test_an_empty_list_shows_its_head(self) -> None:
        console = screen()

        console.print(render.parent_table([]))

        assert "created" in text_of(console)

    def test_foreign_text_is_neither_markup_nor_control(self) -> None:
        console = screen(width=200)
        rotten = wire.completed_child_job(target=ROTTEN, reason="\x1b]0;owned\x07 [b]")

        console.print(render.outcome_table([rotten]))

        assert SHOWN in text_of(console)
        assert render.reasons([rotten]) == [f"vacuum {SHOWN}: \\x1b]0;owned\\x07 [b]"]

    def test_a_file_gets_wide_lines_and_a_terminal_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("COLUMNS", raising=False)
        assert render.console(io.StringIO()).width == render.WIDTH_OF_A_FILE

        monkeypatch.setenv("COLUMNS", "90")
        assert render.console(io.StringIO()).width == 90
