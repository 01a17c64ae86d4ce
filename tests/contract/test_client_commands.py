"""Every command of `overhaul` against a scripted manager: what it asks, what it prints, how it exits."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from typer.testing import CliRunner, Result

from manager_service.client.cli import app
from manager_service.client.client import ManagerClient
from manager_service.client.commands.create import show_planned
from manager_service.client.options import Output, Scope
from manager_service.client.request import JobRequest
from overhaul.v1 import fleet_service_pb2, job_pb2, job_service_pb2, lease_service_pb2
from tests.client_doubles import wire
from tests.client_doubles.fake_manager import FakeManager, Hang, Refusal
from tests.contract.manager_harness import eventually

CREATED = job_service_pb2.CreateParentJobResponse(parent_job=wire.parent_job())
PARENT = {
    "id": wire.PARENT_ID,
    "type": "database_maintenance_parent",
    "name": "vacuum of app",
    "state": "completed",
    "counts": {
        "total": 1,
        "pending": 0,
        "leased": 0,
        "running": 0,
        "completed": 1,
        "failed": 0,
        "cancelled": 0,
        "skipped": 0,
    },
    "totals": {
        "attempts": 1,
        "sized_attempts": 1,
        "lock_wait_attempts": 1,
        "blocking_attempts": 0,
        "bytes_reclaimed": 3_000_000,
        "bytes_grown": 0,
        "lock_wait_seconds": 0.5,
        "blocking_seconds": None,
        "lock_waiters": [],
    },
    "dry_run": False,
    "create_time": "2026-01-31T04:05:06.000000Z",
    "start_time": "2026-01-31T04:05:07.000000Z",
    "end_time": "2026-01-31T04:05:09.500000Z",
}
CHILD: dict[str, Any] = {
    "id": wire.CHILD_ID,
    "type": "database_maintenance_operation",
    "operation": "vacuum",
    "target": "app",
    "object": None,
    "state": "completed",
    "verdict": "effective",
    "reason": "freed 3 MB",
    "wait_reason": None,
    "wait_detail": "",
    "attempts": 1,
    "failure": None,
    "before": {"file_bytes": 4_000_000, "free_pages": 750, "load": 0.5},
    "after": {"file_bytes": 1_000_000, "free_pages": 0},
    "lock_waiters": [],
    "start_time": "2026-01-31T04:05:07.000000Z",
    "end_time": "2026-01-31T04:05:09.250000Z",
    "expected_seconds": None,
    "progress": None,
}
UNSELECTED = wire.child_job(
    operation="inspect", state=job_pb2.CHILD_JOB_STATE_SKIPPED, reason="nothing fits 'nosuch.*'"
)
WORKER = fleet_service_pb2.Worker(
    worker_name="w1",
    instance_id="i",
    state=fleet_service_pb2.SESSION_STATE_READY,
    build="0.1.0",
    host="db1",
    pid=7,
    slots=4,
    slots_used=1,
    targets=[f"t{number}" for number in range(7)],
    heartbeat_time=wire.at(0),
)
TARGET = fleet_service_pb2.Target(
    name="app",
    engine="sqlite",
    engine_version="3.51.3",
    identity="disk:1",
    labels={"stage": "test"},
    max_parallel=1,
    operations=[lease_service_pb2.OfferedOperation(name="vacuum")],
    workers=["w1"],
    pending=2,
    live=1,
)


@pytest.fixture
def manager() -> Iterator[FakeManager]:
    with FakeManager() as running:
        yield running


def overhaul(manager: FakeManager, *arguments: str, **environment: str) -> Result:
    # As wide wherever the tests run; a terminal of their own, or none, has any width.
    width = {"COLUMNS": "120"}
    return CliRunner().invoke(app, arguments, env={"OVERHAUL_MANAGER": manager.address, **width, **environment})


def printed(result: Result) -> dict[str, Any]:
    """Return the one object on stdout."""
    assert result.exit_code == 0, result.output
    [line] = result.stdout.splitlines()
    whole: dict[str, Any] = json.loads(line)
    return whole


def refusal(code: grpc.StatusCode, **details: Any) -> Refusal:
    return Refusal(code=code, **details)


@pytest.fixture
def finished(manager: FakeManager) -> FakeManager:
    """A manager with one job that completes while it is watched."""
    manager.answers("CreateParentJob", CREATED)
    manager.answers("GetParentJob", job_service_pb2.GetParentJobResponse(parent_job=wire.completed_parent_job()))
    manager.answers(
        "ListChildJobs", job_service_pb2.ListChildJobsResponse(child_jobs=[wire.completed_child_job()])
    )
    manager.answers(
        "WatchParentJob",
        [
            wire.snapshot(wire.parent_job(counts=job_pb2.ChildJobCounts(total=1, leased=1))),
            wire.child_event(4),
            wire.progress(phase="copy", done=1, total=2),
            wire.completed_child_event(5),
            wire.parent_event(6, wire.completed_parent_job()),
        ],
    )
    return manager


def planning(manager: FakeManager, *children: job_pb2.ChildJob, **parent: Any) -> FakeManager:
    """Script a plan that takes a parent job of its own."""
    planned = wire.completed_parent_job(dry_run=True, **parent)
    manager.answers("CreateParentJob", job_service_pb2.CreateParentJobResponse(parent_job=wire.parent_job()))
    manager.answers("GetParentJob", job_service_pb2.GetParentJobResponse(parent_job=planned))
    manager.answers("ListChildJobs", job_service_pb2.ListChildJobsResponse(child_jobs=children))
    manager.answers("WatchParentJob", [wire.snapshot(planned)])
    return manager


@pytest.fixture
def inspected(manager: FakeManager) -> FakeManager:
    """A manager with a plan: one table is worth its while, another is not."""
    skipped = {"state": job_pb2.CHILD_JOB_STATE_SKIPPED, "before": {"size_bytes": 2_000_000}}
    return planning(
        manager,
        wire.completed_child_job(operation="inspect", reason="found 2 tables"),
        wire.child_job(object="users", reason="planned: VACUUM users\nCHECK: only if rows > 1: rows 2", **skipped),
        wire.child_job(object="visits", reason="not worth its while, only if rows > 1: rows 0", **skipped),
    )


class TestPlan:
    def test_it_shows_what_would_be_done_and_what_not(self, inspected: FakeManager) -> None:
        table = overhaul(inspected, "plan", "app", "--operation", "vacuum", "--only-if", "rows > 1")

        [request] = inspected.requests("CreateParentJob")
        assert table.exit_code == 0
        assert request.dry_run
        assert (list(request.targets), request.scope) == (["app"], job_pb2.SCOPE_TABLE)
        assert [item.condition for item in request.only_if] == ["rows > 1"]
        assert "app.users" in table.stdout
        assert "2.0 MB" in table.stdout
        assert "VACUUM users; CHECK: only if rows > 1: rows 2" in table.stdout
        assert "not worth its while" in table.stdout
        assert "inspect app: found 2 tables" in table.stdout

    def test_as_an_object_it_has_every_child(self, inspected: FakeManager) -> None:
        whole = printed(overhaul(inspected, "plan", "app", "--output", "json"))

        assert [child["object"] for child in whole["child_jobs"]] == [None, "users", "visits"]
        assert whole["parent_job"]["dry_run"] is True

    def test_how_long_it_takes_is_told_where_it_was_learned(self, manager: FakeManager) -> None:
        skipped = {"state": job_pb2.CHILD_JOB_STATE_SKIPPED, "reason": "planned"}
        planning(
            manager,
            wire.child_job(object="users", expected_duration=Duration(seconds=400), **skipped),
            wire.child_job(object="visits", expected_duration=Duration(seconds=200), **skipped),
            wire.child_job(object="new", **skipped),
            wire.child_job(
                object="idle",
                expected_duration=Duration(seconds=9_000),
                state=job_pb2.CHILD_JOB_STATE_SKIPPED,
                reason="not worth its while",
            ),
            max_parallel=4,
        )

        table = overhaul(manager, "plan", "app")
        whole = printed(overhaul(manager, "plan", "app", "--output", "json"))

        rows = {words[1]: words for line in table.stdout.splitlines() if len(words := line.split()) > 2}
        assert rows["app.users"][2] == "06:40"
        assert rows["app.new"][2] == "unknown"
        assert rows["app.idle"][2] == "not"
        assert (
            "that takes about 10 min one after the other, about 7 min with 4 at once, not counting 1 of which "
            "nothing is known"
        ) in table.stderr
        assert [child["expected_seconds"] for child in whole["child_jobs"]] == [400, 200, None, 9_000]

    def test_where_nothing_was_learned_that_is_told(self, inspected: FakeManager) -> None:
        table = overhaul(inspected, "plan", "app")

        assert "how long that takes is not known: none of it completed before" in table.stderr
        assert "expected" not in table.stdout

    def test_of_a_whole_database_the_statements_are_asked_for_too(self, manager: FakeManager) -> None:
        skipped = {"state": job_pb2.CHILD_JOB_STATE_SKIPPED, "before": {"size_bytes": 2_000_000}}
        planning(
            manager,
            wire.completed_child_job(operation="inspect", reason="found the database"),
            wire.child_job(reason="planned: VACUUM -- writers wait", **skipped),
        )

        table = overhaul(manager, "plan", "app", "--scope", "database")
        chosen = overhaul(manager, "plan", "app", "--scope", "database", "--only-if", "free_ratio > 0.2")

        first, second = manager.requests("CreateParentJob")
        assert (table.exit_code, chosen.exit_code) == (0, 0)
        assert "VACUUM -- writers wait" in table.stdout
        assert "2.0 MB" in table.stdout
        assert (first.scope, first.dry_run) == (job_pb2.SCOPE_DATABASE, True)
        assert list(first.only_if) == [job_pb2.Threshold(condition="1")]
        assert list(second.only_if) == [job_pb2.Threshold(condition="free_ratio > 0.2")]

    def test_where_it_cannot_be_inspected_its_children_are_shown_without(self, manager: FakeManager) -> None:
        lacking = "target 'app' cannot be inspected by its worker; use scope database, or upgrade it"
        refused = refusal(grpc.StatusCode.INVALID_ARGUMENT, reason="INVALID_REQUEST", fields={"only_if": lacking})
        plain = job_service_pb2.CreateParentJobResponse(
            parent_job=wire.parent_job(id=""), child_jobs=[wire.child_job(id="")]
        )
        manager.answers("CreateParentJob", refused, plain)

        table = overhaul(manager, "plan", "app", "--scope", "database")

        assert table.exit_code == 0
        assert "vacuum app" in table.stdout
        assert f"the statements are not known: {lacking}" in table.stderr
        assert [list(one.only_if) != [] for one in manager.requests("CreateParentJob")] == [True, False]

    def test_another_refusal_of_it_stands(self, manager: FakeManager) -> None:
        refused = refusal(grpc.StatusCode.INVALID_ARGUMENT, reason="INVALID_REQUEST", fields={"targets": "which?"})
        manager.answers("CreateParentJob", refused)

        table = overhaul(manager, "plan", "app", "--scope", "database")

        assert table.exit_code == 2
        assert "targets: which?" in table.stderr
        assert len(manager.requests("CreateParentJob")) == 1

    def test_how_many_at_once_is_on_the_wire(self, inspected: FakeManager) -> None:
        overhaul(inspected, "plan", "app", "--max-parallel", "4")

        [request] = inspected.requests("CreateParentJob")
        assert request.max_parallel == 4

    def test_a_selection_that_takes_nothing_is_warned_of(self, manager: FakeManager) -> None:
        planning(manager, UNSELECTED)

        table = overhaul(manager, "plan", "app", "--include", "nosuch.*")
        as_object = overhaul(manager, "plan", "app", "--include", "nosuch.*", "--output", "json")

        assert (table.exit_code, as_object.exit_code) == (0, 0)
        assert "warning: inspect app: nothing fits 'nosuch.*'" in table.stderr.splitlines()
        assert "warning: inspect app: nothing fits 'nosuch.*'" in as_object.stderr.splitlines()
        assert "nothing fits" not in table.stdout

    async def test_one_that_nobody_waits_for_is_cancelled(self, manager: FakeManager) -> None:
        manager.answers("CreateParentJob", CREATED)
        manager.answers("WatchParentJob", [Hang()])
        manager.answers("CancelParentJob", job_service_pb2.CancelParentJobResponse(parent_job=wire.parent_job()))

        async def watched() -> bool:
            return bool(manager.requests("WatchParentJob"))

        async with ManagerClient(manager.address) as client:
            asked = show_planned(client, JobRequest(targets=["app"], scope=Scope.TABLE), Output.TABLE)
            task = asyncio.create_task(asked)
            await eventually(watched)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        [request] = manager.requests("CancelParentJob")
        assert request.parent_job_id == wire.PARENT_ID

    def test_what_could_not_be_inspected_is_told(self, manager: FakeManager) -> None:
        failure = job_pb2.Failure(reason="X", message="the server is away")
        child = wire.child_job(operation="inspect", state=job_pb2.CHILD_JOB_STATE_FAILED, failure=failure)
        planning(manager, child, state=job_pb2.PARENT_JOB_STATE_FAILED)

        table = overhaul(manager, "plan", "app")

        assert table.exit_code == 1
        assert "inspect app: the server is away" in table.stdout


class TestCreate:
    def test_it_prints_the_parent_alone(self, manager: FakeManager) -> None:
        manager.answers("CreateParentJob", CREATED)

        table = overhaul(manager, "create", "--target", "app")
        whole = printed(overhaul(manager, "create", "--target", "app", "--output", "json"))

        assert table.exit_code == 0
        assert wire.PARENT_ID in table.stdout
        assert set(whole) == {"parent_job"}
        assert whole["parent_job"]["state"] == "running"
        assert whole["parent_job"]["end_time"] is None

    def test_every_option_is_on_the_wire(self, manager: FakeManager) -> None:
        manager.answers("CreateParentJob", CREATED)

        result = overhaul(
            manager,
            *("create", "--target", "app", "--target", "other", "--operation", "vacuum"),
            *("--operation", "analyze:limit=400,full=true", "--name", "nightly", "--priority", "-3"),
            *("--max-parallel", "2", "--timeout", "1h30m", "--deadline", "2030-01-31T04:00:00+00:00"),
            *("--label", "team=data", "--max-failed", "1", "--max-failures", "4", "--max-losses", "5"),
            *("--allow-unknown-targets", "--request-id", "mine", "--scope", "table"),
            *("--include", "public.*", "--exclude", "audit", "--exclude", "*_old"),
            *("--only-if", "dead_ratio > 0.1", "--only-if", "vacuum@app/big*: rows > 1e6"),
        )

        [request] = manager.requests("CreateParentJob")
        assert result.exit_code == 0
        assert list(request.targets) == ["app", "other"]
        assert [one.name for one in request.operations] == ["vacuum", "analyze"]
        assert dict(request.operations[1].options) == {"limit": "400", "full": "true"}
        assert (request.name, request.priority, request.max_parallel) == ("nightly", -3, 2)
        assert request.timeout.seconds == 5_400
        assert request.deadline.seconds == 1_896_062_400
        assert dict(request.labels) == {"team": "data"}
        assert request.failure_policy.max_failed_children == 1
        assert (request.retry_policy.max_failures, request.retry_policy.max_losses) == (4, 5)
        assert request.allow_unknown_targets
        assert request.request_id == "mine"
        assert request.scope == job_pb2.SCOPE_TABLE
        assert (list(request.selection.include), list(request.selection.exclude)) == (
            ["public.*"],
            ["audit", "*_old"],
        )
        assert list(request.only_if) == [
            job_pb2.Threshold(condition="dead_ratio > 0.1"),
            job_pb2.Threshold(condition="rows > 1e6", operation="vacuum", target="app", object="big*"),
        ]

    def test_options_come_from_the_environment_too(self, manager: FakeManager) -> None:
        manager.answers("CreateParentJob", CREATED)

        result = overhaul(
            manager, "create", OVERHAUL_CREATE_TARGET_LABEL="stage=test", OVERHAUL_CREATE_FAIL_FAST="1"
        )

        [request] = manager.requests("CreateParentJob")
        assert result.exit_code == 0
        assert dict(request.target_labels) == {"stage": "test"}
        assert request.failure_policy.mode == job_pb2.FAILURE_MODE_FAIL_FAST

    def test_a_dry_run_prints_the_children(self, manager: FakeManager) -> None:
        plan = job_service_pb2.CreateParentJobResponse(
            parent_job=wire.parent_job(id=""), child_jobs=[wire.child_job(id="", object="users")]
        )
        manager.answers("CreateParentJob", plan)

        table = overhaul(manager, "create", "--target", "app", "--dry-run")
        whole = printed(overhaul(manager, "create", "--target", "app", "--dry-run", "--output", "json"))

        assert "nothing was stored" in table.stderr
        assert "app.users" in table.stdout
        assert whole["parent_job"]["id"] is None
        assert [(child["id"], child["object"]) for child in whole["child_jobs"]] == [(None, "users")]

    def test_a_dry_run_that_inspects_waits_for_what_is_found(self, inspected: FakeManager) -> None:
        table = overhaul(inspected, "create", "--target", "app", "--scope", "table", "--dry-run")

        [request] = inspected.requests("CreateParentJob")
        assert table.exit_code == 0
        assert request.dry_run
        assert "VACUUM users" in table.stdout
        assert "would create 1 child jobs, 1 left out; nothing was changed" in table.stderr

    def test_watched_it_exits_by_the_end(self, finished: FakeManager) -> None:
        table = overhaul(finished, "create", "--target", "app", "--watch")
        whole = printed(overhaul(finished, "create", "--target", "app", "--watch", "--output", "json"))

        assert table.exit_code == 0
        assert f"created {wire.PARENT_ID}" in table.stderr
        assert "4.0 MB -> 1.0 MB" in table.stdout
        assert whole == {"parent_job": PARENT, "child_jobs": [CHILD]}

    def test_watched_it_warns_of_a_selection_that_takes_nothing(self, manager: FakeManager) -> None:
        manager.answers("CreateParentJob", CREATED)
        planning(manager, UNSELECTED)

        table = overhaul(
            manager, *("create", "--target", "app", "--scope", "table", "--include", "nosuch.*", "--watch")
        )

        assert table.exit_code == 0
        assert "warning: inspect app: nothing fits 'nosuch.*'" in table.stderr.splitlines()
        assert "skipped" in table.stdout
        assert "nothing fits" not in table.stdout

    @pytest.mark.parametrize(
        ("wrong", "told"),
        [
            (("--timeout", "soon"), "write for example 30s"),
            (("--deadline", "tomorrow"), "write for example 2030-01-31T04:00 or +2h"),
            (("--label", "team"), "write key=value"),
            (("--operation", ":x=1"), "write NAME or NAME:option=value"),
            (("--fail-fast", "--max-failed", "1"), "exclude each other"),
            (("--priority", "101"), "--priority"),
        ],
    )
    def test_misuse_is_refused_before_a_call(
        self, manager: FakeManager, wrong: tuple[str, ...], told: str
    ) -> None:
        result = overhaul(manager, "create", "--target", "app", *wrong)

        assert result.exit_code == 2
        assert told in " ".join(result.stderr.split())
        assert manager.calls == []


class TestGet:
    def test_a_parent_job_with_its_children(self, finished: FakeManager) -> None:
        table = overhaul(finished, "get", wire.PARENT_ID)
        whole = printed(overhaul(finished, "get", wire.PARENT_ID, "--output", "json"))

        assert table.exit_code == 0
        assert wire.CHILD_ID in table.stdout
        assert "freed 3 MB" in table.stdout
        assert whole == {"parent_job": PARENT, "child_jobs": [CHILD], "expected_seconds_left": None}

    def test_a_job_that_runs_tells_how_long_it_may_go_on(self, manager: FakeManager) -> None:
        running = wire.child_job(
            state=job_pb2.CHILD_JOB_STATE_RUNNING, object="a", expected_duration=Duration(seconds=7_200)
        )
        running.start_time.GetCurrentTime()
        waiting = wire.child_job(object="b", expected_duration=Duration(seconds=3_600))
        children = [running, waiting, wire.child_job(object="c")]
        manager.answers("GetParentJob", job_service_pb2.GetParentJobResponse(parent_job=wire.parent_job()))
        manager.answers("ListChildJobs", job_service_pb2.ListChildJobsResponse(child_jobs=children))

        table = overhaul(manager, "get", wire.PARENT_ID)
        whole = printed(overhaul(manager, "get", wire.PARENT_ID, "--output", "json"))

        assert "about 3 h left, not counting 1 of which nothing is known" in table.stderr
        assert "2:00:00" in table.stdout
        assert "unknown" in table.stdout
        assert whole["expected_seconds_left"] == pytest.approx(10_800, abs=60)

    def test_a_running_child_tells_how_far_it_is(self, manager: FakeManager) -> None:
        far = job_pb2.Progress(phase="scan", done=41, total=100, unit="pages", remaining=Duration(seconds=115))
        state = {"state": job_pb2.CHILD_JOB_STATE_RUNNING}
        children = [
            wire.child_job(object="a", progress=far, **state),
            wire.child_job(object="b", progress=job_pb2.Progress(phase="wait"), **state),
            wire.child_job(object="c", **state),
        ]
        manager.answers("GetParentJob", job_service_pb2.GetParentJobResponse(parent_job=wire.parent_job()))
        manager.answers("ListChildJobs", job_service_pb2.ListChildJobsResponse(child_jobs=children))

        table = overhaul(manager, "get", wire.PARENT_ID)
        whole = printed(overhaul(manager, "get", wire.PARENT_ID, "--output", "json"))

        rows = {
            words[2]: " ".join(words[3:]) for line in table.stdout.splitlines() if len(words := line.split()) > 3
        }
        assert rows["app.a"].startswith("running: scan 41 %, about 2 min left")
        assert rows["app.b"].startswith("running: wait")
        assert rows["app.c"].startswith("running 0")
        assert [child["progress"] for child in whole["child_jobs"]] == [
            {"phase": "scan", "done": 41, "total": 100, "unit": "pages", "remaining_seconds": 115},
            {"phase": "wait", "done": None, "total": None, "unit": "", "remaining_seconds": None},
            None,
        ]

    def test_a_failed_child_tells_its_failure(self, manager: FakeManager) -> None:
        failed = wire.completed_parent_job(state=job_pb2.PARENT_JOB_STATE_PARTIALLY_COMPLETED)
        manager.answers("GetParentJob", job_service_pb2.GetParentJobResponse(parent_job=failed))
        manager.answers(
            "ListChildJobs", job_service_pb2.ListChildJobsResponse(child_jobs=[wire.failed_child_job()])
        )

        table = overhaul(manager, "get", wire.PARENT_ID)
        whole = printed(overhaul(manager, "get", wire.PARENT_ID, "--output", "json"))

        assert "vacuum app: the disk is full; free 4 MB" in table.stdout
        assert whole["parent_job"]["state"] == "partially_completed"
        assert whole["child_jobs"][0]["verdict"] is None
        assert whole["child_jobs"][0]["failure"] == {
            "reason": "SQLITE_FULL",
            "message": "the disk is full; free 4 MB",
            "category": "disk_full",
            "retryable": True,
        }

    @pytest.mark.parametrize(
        ("reason", "words"),
        [
            (job_pb2.WAIT_REASON_TARGET_BUSY, "target busy"),
            (job_pb2.WAIT_REASON_AVAILABLE_TIME, "to be tried again"),
        ],
    )
    def test_a_waiting_child_tells_why(
        self, manager: FakeManager, reason: job_pb2.WaitReason.ValueType, words: str
    ) -> None:
        waiting = wire.child_job(wait_reason=reason, wait_detail="reindex runs")
        manager.answers("GetParentJob", job_service_pb2.GetParentJobResponse(parent_job=wire.parent_job()))
        manager.answers("ListChildJobs", job_service_pb2.ListChildJobsResponse(child_jobs=[waiting]))

        table = overhaul(manager, "get", wire.PARENT_ID)

        assert f"{words}: reindex runs" in table.stdout

    def test_it_tells_what_was_done_in_all_and_who_was_kept_waiting(self, manager: FakeManager) -> None:
        waited = wire.totals(blocking_attempts=1, blocking_seconds=12.5, lock_waiters=[wire.lock_waiter()])
        parent = wire.completed_parent_job(totals=waited)
        manager.answers("GetParentJob", job_service_pb2.GetParentJobResponse(parent_job=parent))
        child = wire.completed_child_job(after={"file_bytes": 1e6, "blocking_seconds": 12.5})
        manager.answers("ListChildJobs", job_service_pb2.ListChildJobsResponse(child_jobs=[child]))

        table = overhaul(manager, "get", wire.PARENT_ID, COLUMNS="80")
        whole = printed(overhaul(manager, "get", wire.PARENT_ID, "--output", "json"))

        assert wire.CHILD_ID in table.stdout
        assert "4.0 MB ->" in table.stdout
        assert table.stdout.splitlines()[-3:] == [
            "in all: reclaimed 3.0 MB",
            "locks: waited 0.5 s; others were seen waiting for it for 12.5 s",
            "  billing (app) waited 12.5 s for public.orders (RowExclusiveLock), 3 sessions",
        ]
        assert whole["parent_job"]["totals"]["blocking_seconds"] == 12.5
        assert whole["parent_job"]["totals"]["lock_waiters"] == [
            {
                "application": "billing",
                "user": "app",
                "object": "public.orders",
                "lock_mode": "RowExclusiveLock",
                "seconds": 12.5,
                "sessions": 3,
            }
        ]

    @pytest.mark.parametrize("command", ["get", "watch"])
    def test_where_nothing_was_done_there_are_no_sums(self, manager: FakeManager, command: str) -> None:
        sums = wire.totals(bytes_reclaimed=0.0, blocking_attempts=1, blocking_seconds=0.0)
        failed = wire.completed_parent_job(state=job_pb2.PARENT_JOB_STATE_FAILED, totals=sums)
        children = [wire.completed_child_job(operation="inspect"), wire.failed_child_job(object="users")]
        manager.answers("GetParentJob", job_service_pb2.GetParentJobResponse(parent_job=failed))
        manager.answers("ListChildJobs", job_service_pb2.ListChildJobsResponse(child_jobs=children))
        manager.answers("WatchParentJob", [wire.snapshot(failed)])

        table = overhaul(manager, command, wire.PARENT_ID)

        assert "the disk is full" in table.stdout
        assert "in all:" not in table.stdout
        assert "locks:" not in table.stdout

    def test_who_was_kept_waiting_by_what_failed_is_told(self, manager: FakeManager) -> None:
        sums = wire.totals(
            bytes_reclaimed=0.0, blocking_attempts=1, blocking_seconds=12.5, lock_waiters=[wire.lock_waiter()]
        )
        failed = wire.completed_parent_job(state=job_pb2.PARENT_JOB_STATE_FAILED, totals=sums)
        manager.answers("GetParentJob", job_service_pb2.GetParentJobResponse(parent_job=failed))
        manager.answers(
            "ListChildJobs", job_service_pb2.ListChildJobsResponse(child_jobs=[wire.failed_child_job()])
        )

        table = overhaul(manager, "get", wire.PARENT_ID)

        assert table.stdout.splitlines()[-2:] == [
            "locks: waited 0.5 s; others were seen waiting for it for 12.5 s",
            "  billing (app) waited 12.5 s for public.orders (RowExclusiveLock), 3 sessions",
        ]
        assert "in all:" not in table.stdout

    def test_the_id_of_a_child_shows_every_measure(self, manager: FakeManager) -> None:
        gone = refusal(grpc.StatusCode.NOT_FOUND, reason="PARENT_JOB_NOT_FOUND")
        manager.answers("GetParentJob", gone)
        child = wire.completed_child_job(lock_waiters=[wire.lock_waiter(application="cron", sessions=1)])
        manager.answers("GetChildJob", job_service_pb2.GetChildJobResponse(child_job=child))

        table = overhaul(manager, "get", wire.CHILD_ID)

        assert ["load", "0.5"] in [line.split() for line in table.stdout.splitlines()]
        assert "  cron (app) waited 12.5 s for public.orders (RowExclusiveLock)" in table.stdout.splitlines()

    def test_the_id_of_a_child_shows_its_attempts(self, manager: FakeManager) -> None:
        attempt = job_pb2.Attempt(
            attempt=1,
            worker_name="w1",
            outcome=job_pb2.OUTCOME_FAILED,
            failure=job_pb2.Failure(reason="SQLITE_BUSY", message="locked"),
            create_time=wire.at(1),
        )
        manager.answers(
            "GetParentJob", refusal(grpc.StatusCode.NOT_FOUND, message="no", reason="PARENT_JOB_NOT_FOUND")
        )
        manager.answers(
            "GetChildJob",
            job_service_pb2.GetChildJobResponse(child_job=wire.completed_child_job(), attempts=[attempt]),
        )

        table = overhaul(manager, "get", wire.CHILD_ID)
        whole = printed(overhaul(manager, "get", wire.CHILD_ID, "--output", "json"))

        assert "locked" in table.stdout
        assert whole["child_job"] == CHILD
        assert whole["attempts"][0]["outcome"] == "failed"
        assert whole["attempts"][0]["failure"]["category"] is None

    @pytest.mark.parametrize("child_reason", ["CHILD_JOB_NOT_FOUND", "INVALID_REQUEST"])
    def test_an_unknown_id_is_refused(self, manager: FakeManager, child_reason: str) -> None:
        code = grpc.StatusCode.NOT_FOUND
        manager.answers("GetParentJob", refusal(code, message="no such job", reason="PARENT_JOB_NOT_FOUND"))
        manager.answers("GetChildJob", refusal(code, message="no such job either", reason=child_reason))

        result = overhaul(manager, "get", "nothing")

        assert result.exit_code == 2
        assert result.stderr.startswith("overhaul: no such job")
        assert result.stdout == ""


class TestList:
    def test_the_filters_are_on_the_wire(self, manager: FakeManager) -> None:
        manager.answers(
            "ListParentJobs", job_service_pb2.ListParentJobsResponse(parent_jobs=[wire.completed_parent_job()])
        )

        table = overhaul(manager, "list", "--state", "partially_completed", "--target", "app", "--label", "a=b")
        whole = printed(overhaul(manager, "list", "--output", "json"))

        request = manager.requests("ListParentJobs")[0]
        assert wire.PARENT_ID in table.stdout
        assert list(request.states) == [job_pb2.PARENT_JOB_STATE_PARTIALLY_COMPLETED]
        assert (request.target, dict(request.labels)) == ("app", {"a": "b"})
        assert whole == {"parent_jobs": [PARENT]}

    def test_more_than_the_limit_is_said(self, manager: FakeManager) -> None:
        page = job_service_pb2.ListParentJobsResponse(
            parent_jobs=[wire.parent_job(id="a"), wire.parent_job(id="b")], next_page_token="more"
        )
        manager.answers("ListParentJobs", page)

        result = overhaul(manager, "list", "--limit", "1", "--output", "json")

        assert [job["id"] for job in json.loads(result.stdout)["parent_jobs"]] == ["a"]
        assert "--limit" in result.stderr
        assert len(manager.requests("ListParentJobs")) == 1


class TestWatch:
    def test_plain_lines_on_stderr_and_the_table_on_stdout(self, finished: FakeManager) -> None:
        result = overhaul(finished, "watch", wire.PARENT_ID)

        assert result.exit_code == 0
        assert result.stderr.splitlines() == [
            "job running: 0 of 1 children ended",
            "vacuum app: running",
            "vacuum app: completed, effective (freed 3 MB)",
            "job completed: 1 of 1 children ended",
            f"job {wire.PARENT_ID} completed",
        ]
        assert "2.2 s" in result.stdout

    def test_one_object_per_line(self, finished: FakeManager) -> None:
        result = overhaul(finished, "watch", wire.PARENT_ID, "--output", "json")

        lines = [json.loads(line) for line in result.stdout.splitlines()]
        assert [line["update"] for line in lines] == [
            "snapshot",
            "child_job",
            "progress",
            "child_job",
            "parent_job",
        ]
        assert [line.get("sequence") for line in lines] == [3, 4, None, 5, 6]
        assert lines[3]["verdict"] == "effective"
        assert (lines[2]["done"], lines[2]["total"]) == (1, 2)

    @pytest.mark.parametrize("output", ["table", "json"])
    def test_another_end_exits_1(self, manager: FakeManager, output: str) -> None:
        failed = wire.completed_parent_job(state=job_pb2.PARENT_JOB_STATE_FAILED)
        counts = job_pb2.ChildJobCounts(total=1, cancelled=1)
        manager.answers("GetParentJob", job_service_pb2.GetParentJobResponse(parent_job=failed))
        manager.answers(
            "ListChildJobs", job_service_pb2.ListChildJobsResponse(child_jobs=[wire.failed_child_job()])
        )
        manager.answers("WatchParentJob", [wire.snapshot(failed), wire.bulk_event(4, counts)])

        result = overhaul(manager, "watch", wire.PARENT_ID, "--output", output)

        assert result.exit_code == 1

    def test_ctrl_c_stops_only_the_watching(self, finished: FakeManager, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("manager_service.client.follow.Standing.take", interrupted)

        result = overhaul(finished, "watch", wire.PARENT_ID)

        assert result.exit_code == 130
        assert "the job goes on" in result.stderr
        assert finished.requests("CancelParentJob") == []


class TestSteer:
    @pytest.mark.parametrize("command", ["cancel", "pause", "resume", "retry"])
    def test_it_prints_the_parent_job(self, manager: FakeManager, command: str) -> None:
        method = f"{command.capitalize()}ParentJob"
        answer = getattr(job_service_pb2, f"{method}Response")(parent_job=wire.completed_parent_job())
        manager.answers(method, answer)

        table = overhaul(manager, command, wire.PARENT_ID)
        whole = printed(overhaul(manager, command, wire.PARENT_ID, "--output", "json"))

        assert wire.PARENT_ID in table.stdout
        assert whole == {"parent_job": PARENT}

    @pytest.mark.parametrize("command", ["pause", "resume"])
    def test_a_target_is_held_instead(self, manager: FakeManager, command: str) -> None:
        method = f"{command.capitalize()}Target"
        manager.answers(method, getattr(fleet_service_pb2, f"{method}Response")(target=TARGET))

        table = overhaul(manager, command, "--target", "app")
        whole = printed(overhaul(manager, command, "--target", "app", "--output", "json"))

        assert "served" in table.stdout
        assert whole["target"]["name"] == "app"

    @pytest.mark.parametrize("arguments", [(), ("id", "--target", "app")])
    def test_either_a_job_or_a_target_is_held(self, manager: FakeManager, arguments: tuple[str, ...]) -> None:
        result = overhaul(manager, "pause", *arguments)

        assert result.exit_code == 2
        assert manager.calls == []

    def test_delete(self, manager: FakeManager) -> None:
        manager.answers("DeleteParentJob", job_service_pb2.DeleteParentJobResponse())

        table = overhaul(manager, "delete", "gone")
        whole = printed(overhaul(manager, "delete", "gone", "--output", "json"))

        assert table.stdout == "deleted gone\n"
        assert whole == {"deleted": "gone"}


class TestLogs:
    def test_lines_for_people_and_for_programs(self, manager: FakeManager) -> None:
        entry = job_pb2.LogEntry(time=wire.at(0), level="info", message="VACUUM \x1b[31mstarts")
        chunk = job_service_pb2.ReadLogsResponse(attempt=2, offset=5, entries=[entry, entry])
        manager.answers("ReadLogs", [chunk])
        manager.answers("GetChildJob", job_service_pb2.GetChildJobResponse(child_job=wire.child_job()))

        table = overhaul(manager, "logs", wire.CHILD_ID, "--attempt", "2", "--follow")
        lines = overhaul(manager, "logs", wire.CHILD_ID, "--output", "json").stdout.splitlines()

        request = manager.requests("ReadLogs")[0]
        assert (request.attempt, request.follow) == (2, True)
        assert "VACUUM \\x1b[31mstarts" in table.stdout
        assert [json.loads(line)["offset"] for line in lines] == [5, 6]
        assert json.loads(lines[0]) == {
            "attempt": 2,
            "offset": 5,
            "time": "2026-01-31T04:05:06.000000Z",
            "level": "info",
            "message": "VACUUM \x1b[31mstarts",
        }

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ((), "no log lines were written\nattempt 3 failed: the disk is full; free 4 MB\n"),
            (
                ("--attempt", "2"),
                "attempt 2 wrote no log lines\nattempt 2 ended without a report: the worker was lost\n",
            ),
            (("--attempt", "1"), "attempt 1 wrote no log lines\n"),
        ],
    )
    def test_the_end_of_an_attempt_is_told_after_its_log(
        self, manager: FakeManager, arguments: tuple[str, ...], said: str
    ) -> None:
        failed = wire.failed_child_job()
        attempts = [
            job_pb2.Attempt(attempt=1, outcome=job_pb2.OUTCOME_COMPLETED, end_time=wire.at(1)),
            job_pb2.Attempt(attempt=2, reason="the worker was lost", end_time=wire.at(2)),
            job_pb2.Attempt(
                attempt=3, outcome=job_pb2.OUTCOME_FAILED, failure=failed.failure, end_time=wire.at(3)
            ),
        ]
        manager.answers("ReadLogs", [])
        manager.answers("GetChildJob", job_service_pb2.GetChildJobResponse(child_job=failed, attempts=attempts))

        result = overhaul(manager, "logs", wire.CHILD_ID, *arguments)

        assert (result.exit_code, result.stdout, result.stderr) == (0, "", said)

    def test_an_attempt_that_runs_has_no_end_to_tell(self, manager: FakeManager) -> None:
        live = job_service_pb2.GetChildJobResponse(
            child_job=wire.child_job(), attempts=[job_pb2.Attempt(attempt=1)]
        )
        manager.answers("ReadLogs", []).answers("GetChildJob", live)

        assert overhaul(manager, "logs", wire.CHILD_ID).stderr == "no log lines were written\n"


class TestFleet:
    def test_workers(self, manager: FakeManager) -> None:
        manager.answers("ListWorkers", fleet_service_pb2.ListWorkersResponse(workers=[WORKER]))

        table = overhaul(manager, "workers", "--all")
        whole = printed(overhaul(manager, "workers", "--output", "json"))

        assert manager.requests("ListWorkers")[0].include_gone
        assert "1 of 4" in table.stdout
        assert "t4 and 2 more" in table.stdout
        assert whole["workers"][0]["worker_name"] == "w1"
        assert whole["workers"][0]["state"] == "ready"
        assert whole["workers"][0]["poll_time"] is None

    def test_targets(self, manager: FakeManager) -> None:
        held = fleet_service_pb2.Target(name="held", paused=True)
        away = fleet_service_pb2.Target(name="away")
        manager.answers("ListTargets", fleet_service_pb2.ListTargetsResponse(targets=[TARGET, held, away]))

        table = overhaul(manager, "targets", "--label", "stage=test")
        whole = printed(overhaul(manager, "targets", "--output", "json"))

        assert dict(manager.requests("ListTargets")[0].labels) == {"stage": "test"}
        assert all(state in table.stdout for state in ("served", "paused", "not served"))
        assert whole["targets"][0]["operations"] == ["vacuum"]
        assert [target["name"] for target in whole["targets"]] == ["app", "held", "away"]

    def test_drain(self, manager: FakeManager) -> None:
        manager.answers("DrainWorker", fleet_service_pb2.DrainWorkerResponse(worker=WORKER))

        table = overhaul(manager, "drain", "w1", "--terminate")
        whole = printed(overhaul(manager, "drain", "w1", "--output", "json"))

        assert [request.terminate for request in manager.requests("DrainWorker")] == [True, False]
        assert "w1" in table.stdout
        assert whole["worker"]["slots"] == 4

    def test_forget(self, manager: FakeManager) -> None:
        manager.answers("ForgetTarget", fleet_service_pb2.ForgetTargetResponse())

        table = overhaul(manager, "forget", "app")
        whole = printed(overhaul(manager, "forget", "app", "--output", "json"))

        assert table.stdout == "forgotten app\n"
        assert whole == {"forgotten": "app"}


class TestExits:
    @pytest.mark.parametrize(
        ("code", "exit_code"),
        [
            (grpc.StatusCode.INVALID_ARGUMENT, 2),
            (grpc.StatusCode.NOT_FOUND, 2),
            (grpc.StatusCode.ALREADY_EXISTS, 2),
            (grpc.StatusCode.FAILED_PRECONDITION, 2),
            (grpc.StatusCode.INTERNAL, 1),
            (grpc.StatusCode.UNIMPLEMENTED, 1),
        ],
    )
    def test_the_status_decides(self, manager: FakeManager, code: grpc.StatusCode, exit_code: int) -> None:
        manager.answers("CancelParentJob", refusal(code, message="it will not do"))

        result = overhaul(manager, "cancel", "x")

        assert result.exit_code == exit_code
        assert "it will not do" in result.stderr
        assert result.stdout == ""
        assert len(result.stderr.splitlines()) == 1

    def test_wrong_fields_and_near_names_are_told(self, manager: FakeManager) -> None:
        manager.answers(
            "CreateParentJob",
            refusal(
                grpc.StatusCode.NOT_FOUND,
                message="no worker ever served 'ap'",
                reason="TARGET_NOT_FOUND",
                metadata={"near": "app, apq"},
                fields={"targets": "'ap' is unknown"},
            ),
        )

        result = overhaul(manager, "create", "--target", "ap")

        assert result.stderr == (
            "overhaul: no worker ever served 'ap' (targets: 'ap' is unknown) (near: app, apq)\n"
        )

    def test_no_manager_exits_3_and_says_what_to_do(self) -> None:
        with FakeManager() as gone:
            address = gone.address

        result = CliRunner().invoke(app, ["list", "--manager", address])

        assert result.exit_code == 3
        assert result.stderr == (
            f"overhaul: no manager answers at {address} (Connection refused); start one with"
            " `overhaul-manager serve`, or name another with --manager or OVERHAUL_MANAGER\n"
        )

    @pytest.mark.parametrize("address", ["host:port", "http://127.0.0.1:7420"])
    def test_an_address_that_cannot_be_read_exits_2(self, address: str) -> None:
        result = CliRunner().invoke(app, ["list", "--manager", address])

        assert result.exit_code == 2
        assert "write host:port" in result.stderr
