"""Children that are planned by what an ``inspect`` child found."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from manager_service.domain import events
from manager_service.domain.fleet import Lock, OfferedOperation
from manager_service.domain.inspection import Inspection
from manager_service.domain.leases import Lease, ReportStatus
from manager_service.domain.model import ParentJob, PlannedChild, RequestedOperation, Selection, Threshold
from manager_service.domain.ports import ChildJobFilter
from manager_service.domain.states import (
    ChildJobState,
    FailureCategory,
    Outcome,
    ParentJobState,
    Scope,
    WaitReason,
)
from manager_service.store import report as reporting
from tests.factories import FakeWorker, World, report_of, served_target

DATABASE = "db"
OFFERED = ("inspect", "vacuum", "analyze")


def inspect(*targets: str) -> list[PlannedChild]:
    return [PlannedChild(target=target, operation="inspect", lane=target) for target in targets or ("orders",)]


def vacuum(name: str, **fields: Any) -> PlannedChild:
    given = {"operation": "vacuum", "locks": {DATABASE: False, name: True}, "lane": name, **fields}
    return PlannedChild(target="orders", object=name, **given)


async def parent_job(world: World, *targets: str, **spec: Any) -> ParentJob:
    given = {"operations": ("vacuum", "analyze"), "scope": Scope.TABLE, "inspections": len(targets) or 1, **spec}
    return await world.parent_job(children=inspect(*targets), **given)


async def server(world: World, *names: str, max_parallel: int = 10, **fields: Any) -> FakeWorker:
    """Register a worker of targets whose operations take the whole database for themselves, but for inspecting."""
    operations = tuple(
        OfferedOperation(name=name, locks=(Lock(key=DATABASE, exclusive=name != "inspect"),)) for name in OFFERED
    )
    targets = [
        replace(served_target(name, max_parallel=max_parallel), operations=operations)
        for name in names or ("orders",)
    ]
    return await world.worker(*targets, **fields)


async def planned(
    world: World, worker: FakeWorker, children: Sequence[PlannedChild] | None, **fields: Any
) -> tuple[Lease, ReportStatus]:
    [lease] = await worker.acquire(1)
    return lease, await worker.end(lease, planned=None if children is None else tuple(children), **fields)


class TestPlanning:
    async def test_while_nothing_is_known_it_is_planning(self, world: World) -> None:
        worker = await server(world)
        parent = await parent_job(world)
        [lease] = await worker.acquire(1)

        assert parent.state is ParentJobState.PLANNING
        assert await world.state(parent.id) is ParentJobState.PLANNING
        await worker.end(lease, planned=(vacuum("a"),))
        assert await world.state(parent.id) is ParentJobState.RUNNING
        await world.check(parent.id)

    async def test_the_lease_tells_what_to_look_for(self, world: World) -> None:
        worker = await server(world)
        asked = Selection(include=("a*",), exclude=("b",))
        await parent_job(world, scope=Scope.INDEX, selection=asked, dry_run=True)

        [lease] = await worker.acquire(1)

        operations = tuple(RequestedOperation(name=name) for name in ("vacuum", "analyze"))
        wanted = Inspection(scope=Scope.INDEX, operations=operations, selection=asked, preview=True)
        assert lease.inspection == wanted
        await worker.end(lease, planned=(vacuum("a"),))
        [other] = await worker.acquire(1)
        assert other.inspection is None

    async def test_what_was_found_becomes_children(self, world: World) -> None:
        worker = await server(world)
        parent = await parent_job(world)
        skipped = vacuum("c", skipped=True, reason="dead 1", before={"dead": 1.0})

        await planned(world, worker, [vacuum("a", reason="dead 9"), vacuum("b", options={"x": "1"}), skipped])

        first, a, b, c = await world.children(parent)
        assert (first.operation, first.state) == ("inspect", ChildJobState.COMPLETED)
        assert [child.position for child in (first, a, b, c)] == [0, 1, 2, 3]
        assert [(child.object, child.state) for child in (a, b, c)] == [
            ("a", ChildJobState.PENDING),
            ("b", ChildJobState.PENDING),
            ("c", ChildJobState.SKIPPED),
        ]
        assert (a.reason, b.options, c.reason, c.before) == ("dead 9", {"x": "1"}, "dead 1", {"dead": 1})
        assert c.end_time is not None
        assert (await world.store.parent_job(parent.id)).counts.total == 4
        await world.check(parent.id)

    async def test_it_is_one_event(self, world: World) -> None:
        worker = await server(world)
        parent = await parent_job(world)

        await planned(world, worker, [vacuum("a"), vacuum("b")])

        told = [event.change for event in await world.all_events(parent.id)]
        bulk = [change for change in told if isinstance(change, events.BulkChange)]
        assert [(change.kind, change.affected) for change in bulk] == [
            (events.BulkChangeKind.CREATED, 1),
            (events.BulkChangeKind.PLANNED, 2),
        ]
        states = [change.state for change in told if isinstance(change, events.ParentJobChange)]
        assert states == [ParentJobState.RUNNING]

    async def test_the_children_of_several_targets_go_on_behind_each_other(self, world: World) -> None:
        worker = await server(world, "orders", "users")
        parent = await parent_job(world, "orders", "users")

        await planned(world, worker, [vacuum("a"), vacuum("b")])
        assert await world.state(parent.id) is ParentJobState.RUNNING
        inspecting = [lease for lease in await worker.acquire() if lease.operation == "inspect"]
        assert len(inspecting) == 1
        await worker.end(inspecting[0], planned=(vacuum("c"), vacuum("d")))

        positions = [child.position for child in await world.children(parent)]
        assert positions == list(range(6))
        assert len(await worker.acquire()) == 2
        await world.check(parent.id)

    async def test_nothing_found_completes_it(self, world: World) -> None:
        worker = await server(world)
        parent = await parent_job(world)

        await planned(world, worker, [])

        assert await world.state(parent.id) is ParentJobState.COMPLETED
        await world.check(parent.id)

    async def test_all_skipped_completes_it(self, world: World) -> None:
        worker = await server(world)
        parent = await parent_job(world)

        await planned(world, worker, [vacuum("a", skipped=True), vacuum("b", skipped=True)])

        assert await world.state(parent.id) is ParentJobState.COMPLETED
        assert not await worker.acquire()
        await world.check(parent.id)

    async def test_a_lane_begins_behind_what_is_skipped(self, world: World) -> None:
        worker = await server(world)
        await parent_job(world)
        lane = [
            vacuum("a", skipped=True),
            vacuum("a", operation="analyze"),
            vacuum("a", operation="vacuum", options={"second": "1"}),
        ]

        await planned(world, worker, lane)

        [lease] = await worker.acquire()
        assert lease.operation == "analyze"
        await worker.end(lease)
        [lease] = await worker.acquire()
        assert lease.options == {"second": "1"}

    async def test_the_largest_goes_first(self, world: World) -> None:
        worker = await server(world)
        await parent_job(world)

        await planned(world, worker, [vacuum("a", size=1), vacuum("b", size=3), vacuum("c", size=2)])

        assert [(await worker.acquire(1))[0].object for _ in range(3)] == ["b", "c", "a"]

    async def test_listeners_hear_what_became_ready(self, world: World) -> None:
        worker = await server(world)
        await parent_job(world)
        [lease] = await worker.acquire(1)
        world.hints.clear()

        await worker.end(lease, planned=(vacuum("a"), vacuum("b"), vacuum("b"), vacuum("c", skipped=True)))

        assert world.ready_hints() == {"orders": 2}

    async def test_the_next_leases_come_with_the_answer(self, world: World) -> None:
        worker = await server(world)
        await parent_job(world)
        [lease] = await worker.acquire(1)

        report = report_of(lease, planned=(vacuum("a"), vacuum("b")))
        answer = await worker.store.report(worker.session_id, [report], worker.poll(5))

        assert [granted.object for granted in answer.leases] == ["a", "b"]

    async def test_one_call_may_plan_for_several_targets_and_end_others(self, world: World) -> None:
        worker = await server(world, "orders", "users")
        parent = await parent_job(world, "orders", "users")
        other = await parent_job(world, "orders")
        leases = await worker.acquire()
        plans = ((vacuum("a"), vacuum("b")), (vacuum("c"),), ())

        reports = [report_of(lease, planned=plan) for lease, plan in zip(leases, plans, strict=True)]
        answer = await worker.store.report(worker.session_id, reports, worker.poll(5))

        assert answer.statuses == (ReportStatus.RECORDED,) * 3
        assert sorted(str(granted.object) for granted in answer.leases) == ["a", "b", "c"]
        positions = [[child.position for child in await world.children(job)] for job in (parent, other)]
        assert sorted(map(len, positions)) in ([1, 5], [2, 4], [3, 3])
        assert all(found == list(range(len(found))) for found in positions)
        for job in (parent, other):
            await world.check(job.id)


class TestOnce:
    async def test_a_repeated_report_plans_nothing_again(self, world: World) -> None:
        worker = await server(world)
        parent = await parent_job(world)
        [lease] = await worker.acquire(1)
        report = report_of(lease, planned=(vacuum("a"),))
        await worker.store.report(worker.session_id, [report], None)

        answer = await worker.store.report(worker.session_id, [report], None)

        assert answer.statuses == (ReportStatus.ALREADY_RECORDED,)
        assert len(await world.children(parent)) == 2

    async def test_a_stale_one_plans_nothing(self, world: World) -> None:
        worker = await server(world)
        parent = await parent_job(world)
        [lease] = await worker.acquire(1)
        await worker.end(lease, Outcome.RELEASED)

        assert await worker.end(lease, planned=(vacuum("a"),)) is ReportStatus.STALE
        assert len(await world.children(parent)) == 1

    async def test_a_failed_one_plans_nothing(self, world: World) -> None:
        worker = await server(world)
        parent = await parent_job(world)

        await planned(world, worker, [vacuum("a")], outcome=Outcome.FAILED)

        assert len(await world.children(parent)) == 1
        assert await world.state(parent.id) is ParentJobState.PLANNING

    async def test_a_cancelled_parent_job_gets_no_more(self, world: World) -> None:
        worker = await server(world)
        parent = await parent_job(world)
        [lease] = await worker.acquire(1)
        await world.store.cancel_parent_job(parent.id, "")

        assert await worker.end(lease, planned=(vacuum("a"),)) is ReportStatus.RECORDED

        [inspected] = await world.children(parent)
        assert inspected.state is ChildJobState.CANCELLED
        assert await world.state(parent.id) is ParentJobState.CANCELLED
        await world.check(parent.id)

    async def test_a_paused_one_holds_them(self, world: World) -> None:
        worker = await server(world)
        parent = await parent_job(world)
        [lease] = await worker.acquire(1)
        await world.store.pause_parent_job(parent.id)
        world.hints.clear()

        await worker.end(lease, planned=(vacuum("a"),))

        assert not await worker.acquire()
        assert world.ready_hints() == {}
        await world.store.resume_parent_job(parent.id)
        assert len(await worker.acquire()) == 1

    async def test_a_retry_inspects_again(self, world: World) -> None:
        worker = await server(world)
        parent = await parent_job(world)
        await planned(world, worker, None, outcome=Outcome.COMPLETED)
        assert await world.state(parent.id) is ParentJobState.FAILED

        retried = await world.store.retry_parent_job(parent.id)
        again = await world.store.retry_parent_job(parent.id)

        assert (retried.state, again) == (ParentJobState.PLANNING, retried)
        await planned(world, worker, [vacuum("a")])
        assert await world.state(parent.id) is ParentJobState.RUNNING
        await world.check(parent.id)


class TestRefused:
    async def test_one_that_tells_nothing_has_failed(self, world: World) -> None:
        worker = await server(world)
        parent = await parent_job(world)
        [lease] = await worker.acquire(1)
        report = report_of(lease)

        first = await worker.store.report(worker.session_id, [report], None)
        again = await worker.store.report(worker.session_id, [report], None)

        [child] = await world.children(parent)
        assert (first.statuses, again.statuses) == ((ReportStatus.RECORDED,), (ReportStatus.ALREADY_RECORDED,))
        assert child.failure is not None
        assert (child.state, child.failure.reason) == (ChildJobState.FAILED, "NOTHING_FOUND")
        assert child.verdict is None

    async def test_more_than_a_parent_job_may_have_is_a_failure(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reporting, "MAX_CHILDREN", 4)
        worker = await server(world, "orders", "users")
        parent = await parent_job(world, "orders", "users")
        await planned(world, worker, [vacuum("a"), vacuum("b")])
        [lease] = [lease for lease in await worker.acquire() if lease.operation == "inspect"]

        await worker.end(lease, planned=(vacuum("c"),))

        children = await world.children(parent)
        failed = children[1]
        assert len(children) == 4
        assert failed.failure is not None
        assert (failed.failure.reason, failed.failure.category) == ("CANNOT_PLAN", FailureCategory.INVALID)
        await world.check(parent.id)


class TestLocks:
    async def test_two_tables_go_together_and_one_table_does_not(self, world: World) -> None:
        worker = await server(world)
        await parent_job(world)
        await planned(world, worker, [vacuum("a"), vacuum("b")])
        first = await worker.acquire(2)
        await parent_job(world)
        await planned(world, worker, [vacuum("a", operation="analyze"), vacuum("c", operation="analyze")])

        second = await worker.acquire()

        assert [lease.object for lease in first] == ["a", "b"]
        assert [lease.object for lease in second] == ["c"]
        await worker.end(first[0])
        assert [lease.object for lease in await worker.acquire()] == ["a"]

    async def test_a_whole_database_waits_for_its_tables(self, world: World) -> None:
        whole = (Lock(key=DATABASE, exclusive=True),)
        worker = await world.worker(
            served_target("orders", operations=("vacuum",), locks=whole, max_parallel=9),
            served_target("copy", operations=("inspect",), locks=(), max_parallel=9),
        )
        await world.parent_job(children=[*inspect("copy")], inspections=1, scope=Scope.TABLE)
        await planned(world, worker, [vacuum("a")])
        [table] = await worker.acquire()
        job = await world.parent_job("orders")

        assert not await worker.acquire()
        [waiting] = await world.children(job)
        assert waiting.wait_reason is WaitReason.TARGET_BUSY
        await worker.end(table)
        assert len(await worker.acquire()) == 1

    async def test_one_that_waits_for_its_table_says_so(self, world: World) -> None:
        worker = await server(world, worker_name="bea")
        await parent_job(world)
        await planned(world, worker, [vacuum("a")])
        await worker.acquire()
        parent = await parent_job(world)
        await planned(world, worker, [vacuum("a")])

        [waiting] = await world.store.child_jobs(
            parent.id, ChildJobFilter(states=frozenset({ChildJobState.PENDING})), limit=9
        )

        assert (waiting.wait_reason, waiting.wait_detail) == (WaitReason.TARGET_BUSY, "vacuum on bea")

    async def test_a_free_table_is_found_behind_many_that_are_not(self, world: World) -> None:
        worker = await server(world, max_parallel=50)
        tables = [vacuum(f"t{number}") for number in range(8)]
        await parent_job(world)
        await planned(world, worker, tables)
        assert len(await worker.acquire()) == 8
        for _ in range(9):
            # Their first heads, more than a claim walks past in order, are all of tables that are held.
            await parent_job(world)
            await planned(world, worker, tables)
        await parent_job(world, priority=-1)
        await planned(world, worker, [vacuum("free", operation="analyze")])

        assert [lease.object for lease in await worker.acquire()] == ["free"]

    async def test_locks_are_kept_through_a_release_and_a_retry(self, world: World) -> None:
        worker = await server(world)
        parent = await parent_job(world)
        await planned(world, worker, [vacuum("a")])
        [lease] = await worker.acquire()
        await worker.end(lease, Outcome.FAILED, failure=None, retry_after=0)
        await world.live_on(world.timing.lease_duration)
        await world.store.release_due()
        [again] = await worker.acquire()
        other = await parent_job(world)
        await planned(world, worker, [vacuum("a"), vacuum("b")])

        assert again.object == "a"
        assert [lease.object for lease in await worker.acquire()] == ["b"]
        for job in (parent, other):
            await world.check(job.id)


class TestSpec:
    async def test_all_of_it_is_kept(self, world: World) -> None:
        asked = (Threshold(condition="a > 1", operation="vacuum", target="orders", object="a*"),)
        parent = await parent_job(
            world, selection=Selection(include=("a",), exclude=("b",)), only_if=asked, dry_run=True
        )

        read = await world.store.parent_job(parent.id)

        assert read.spec == parent.spec
        assert read.spec.only_if == asked
        assert read.spec.selection.exclude == ("b",)
