"""Inspections over the wire: what a worker is asked, what it answers, and what comes of it."""

import asyncio
import math
from typing import Any

import grpc
import pytest

from manager_service.client.client import ManagerClient
from manager_service.client.inspected import plan_inspected
from manager_service.client.options import Scope
from manager_service.client.request import JobRequest
from manager_service.domain.durations import Completion
from manager_service.domain.model import SECOND
from overhaul.v1 import job_pb2, lease_service_pb2
from tests.contract.manager_harness import RunningManager, Worker, refusal, result, served

DATABASE = lease_service_pb2.Lock(key="db", exclusive=False)


def found(*objects: lease_service_pb2.InspectedObject, **fields: Any) -> lease_service_pb2.InspectionResult:
    given = {
        "measures": ["rows", "size_bytes"],
        "operations": ["vacuum", "analyze"],
        "locks": [DATABASE],
        **fields,
    }
    return lease_service_pb2.InspectionResult(objects=objects, **given)


def table(name: str = "public.a", **fields: Any) -> lease_service_pb2.InspectedObject:
    given: dict[str, Any] = {
        "object": name,
        "operations": [0],
        "size_bytes": 8192,
        "measures": [10.0, math.nan],
        "locks": [lease_service_pb2.Lock(key=f"db/{name}", exclusive=True)],
        **fields,
    }
    return lease_service_pb2.InspectedObject(**given)


def coverage(operation: int, by: int, reason: str = "it does so too") -> lease_service_pb2.Coverage:
    return lease_service_pb2.Coverage(operation=operation, by=by, reason=reason)


async def inspecting(manager: RunningManager, **fields: Any) -> tuple[Worker, job_pb2.ParentJob, Any]:
    """Return a worker with the lease of an ``inspect`` child."""
    offered = [
        lease_service_pb2.OfferedOperation(
            name=name, locks=[lease_service_pb2.Lock(key="db", exclusive=name != "inspect")]
        )
        for name in ("inspect", "vacuum", "analyze")
    ]
    worker = await manager.worker(targets=[served("app", operations=offered, max_parallel=8)])
    given = {"scope": job_pb2.SCOPE_TABLE, "operations": ("vacuum", "analyze"), **fields}
    parent = await manager.create(**given)
    [lease] = await worker.acquire()
    return worker, parent, lease


class TestInspect:
    async def test_a_worker_is_asked_what_the_client_asked(self, manager: RunningManager) -> None:
        selection = job_pb2.Selection(include=["public.*"], exclude=["*_old"])
        _, parent, lease = await inspecting(manager, scope=job_pb2.SCOPE_INDEX, selection=selection, dry_run=True)

        assert lease.operation == "inspect"
        assert not lease.HasField("object")
        assert lease.inspection.scope == job_pb2.SCOPE_INDEX
        assert [item.name for item in lease.inspection.operations] == ["vacuum", "analyze"]
        assert lease.inspection.selection == selection
        assert lease.inspection.preview
        assert (parent.state, parent.dry_run) == (job_pb2.PARENT_JOB_STATE_PLANNING, True)
        assert (parent.selection, parent.scope) == (selection, job_pb2.SCOPE_INDEX)

    async def test_what_it_found_becomes_children(self, manager: RunningManager) -> None:
        worker, parent, lease = await inspecting(manager, only_if=[job_pb2.Threshold(condition="rows > 5")])

        answer = await worker.report(
            result(
                lease,
                inspection=found(
                    table("public.a", operations=[0, 1]),
                    table("public.b", measures=[1, 2]),
                    table("c", left_out="x"),
                ),
            ),
            want=4,
        )

        children = await manager.children(parent.id)
        assert [(child.operation, child.object, child.state) for child in children[1:]] == [
            ("vacuum", "public.a", job_pb2.CHILD_JOB_STATE_LEASED),
            ("analyze", "public.a", job_pb2.CHILD_JOB_STATE_PENDING),
            ("vacuum", "public.b", job_pb2.CHILD_JOB_STATE_SKIPPED),
            ("vacuum", "c", job_pb2.CHILD_JOB_STATE_SKIPPED),
        ]
        assert children[2].wait_reason == job_pb2.WAIT_REASON_PREDECESSOR
        assert children[3].reason == "not worth its while, only if rows > 5: rows 1"
        assert dict(children[3].before) == {"rows": 1, "size_bytes": 2}
        assert children[4].reason == "left out: x"
        [leased] = answer.leases
        assert (leased.object, leased.operation) == ("public.a", "vacuum")
        assert not leased.HasField("inspection")

    async def test_a_targets_own_thresholds_count_where_the_job_has_none(self, manager: RunningManager) -> None:
        asked = [job_pb2.Threshold(condition="rows > 5", operation="vacuum")]
        worker, parent, lease = await inspecting(manager, only_if=asked)
        own = [job_pb2.Threshold(condition="rows > 100")]

        await worker.report(result(lease, inspection=found(table(operations=[0, 1]), only_if=own)))

        _, vacuum, analyze = await manager.children(parent.id)
        assert vacuum.state != job_pb2.CHILD_JOB_STATE_SKIPPED
        assert analyze.state == job_pb2.CHILD_JOB_STATE_SKIPPED
        assert "rows > 100 (as the target's worker is set): rows 10" in analyze.reason

    async def test_a_dry_run_ends_with_the_plan(self, manager: RunningManager) -> None:
        worker, parent, lease = await inspecting(manager, dry_run=True)

        await worker.report(result(lease, inspection=found(table(previews=["VACUUM a"]))))

        ended = await manager.get(parent.id)
        planned = (await manager.children(parent.id))[1]
        assert ended.state == job_pb2.PARENT_JOB_STATE_COMPLETED
        assert (planned.state, planned.reason) == (job_pb2.CHILD_JOB_STATE_SKIPPED, "planned: VACUUM a")

    async def test_what_took_longest_before_goes_first(self, manager: RunningManager) -> None:
        worker, _, lease = await inspecting(manager, operations=("vacuum",))
        tables = table("public.a", size_bytes=9), table("public.b", size_bytes=1)
        answer = await worker.report(result(lease, inspection=found(*tables)), want=4)
        spans = {"public.a": 2, "public.b": 3}
        await worker.report(*(result(one) for one in answer.leases))
        await manager.store.learn(
            [Completion(child_job_id=one.child_job_id, span=spans[one.object] * SECOND) for one in answer.leases]
        )

        again = await manager.create(scope=job_pb2.SCOPE_TABLE, operations=("vacuum",))
        [lease] = await worker.acquire()
        answer = await worker.report(
            result(lease, inspection=found(*tables, table("public.c", size_bytes=100))), want=1
        )

        [leased] = answer.leases
        planned = (await manager.children(again.id))[1:]
        assert leased.object == "public.c"  # of which nothing was learned, but that it is by far the largest
        assert [(child.object, child.expected_duration.ToSeconds()) for child in planned] == [
            ("public.c", 0),
            ("public.b", 3),
            ("public.a", 2),
        ]
        assert not planned[0].HasField("expected_duration")

    async def test_the_whole_database_may_be_found(self, manager: RunningManager) -> None:
        threshold = job_pb2.Threshold(condition="rows > 5")
        worker, _, lease = await inspecting(manager, scope=job_pb2.SCOPE_DATABASE, only_if=[threshold])
        whole = lease_service_pb2.InspectedObject(operations=[1], measures=[6, 7])

        answer = await worker.report(result(lease, inspection=found(whole, locks=[])), want=4)

        [leased] = answer.leases
        assert not leased.HasField("object")
        assert leased.operation == "analyze"

    async def test_one_that_is_skipped_ends_a_job_that_has_nothing_to_do(self, manager: RunningManager) -> None:
        selection = job_pb2.Selection(include=["nosuch.*"])
        worker, parent, lease = await inspecting(manager, selection=selection)

        await worker.report(
            result(lease, outcome=job_pb2.OUTCOME_SKIPPED, verdict=None, reason="nothing fits 'nosuch.*'")
        )

        [child] = await manager.children(parent.id)
        assert (child.state, child.reason) == (job_pb2.CHILD_JOB_STATE_SKIPPED, "nothing fits 'nosuch.*'")
        assert (await manager.get(parent.id)).state == job_pb2.PARENT_JOB_STATE_COMPLETED

    async def test_a_name_that_is_not_measured_fails_with_those_that_are(self, manager: RunningManager) -> None:
        worker, parent, lease = await inspecting(manager, only_if=[job_pb2.Threshold(condition="row > 5")])

        await worker.report(result(lease, inspection=found(table())))

        [child] = await manager.children(parent.id)
        assert child.failure.reason == "CANNOT_PLAN"
        assert "'row'" in child.failure.message
        assert "did you mean rows? There are: rows" in child.failure.message
        assert (await manager.get(parent.id)).state == job_pb2.PARENT_JOB_STATE_FAILED

    async def test_an_inspection_of_what_is_no_inspect_child_means_nothing(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        parent = await manager.create(operations=("vacuum",))
        [lease] = await worker.acquire()

        answer = await worker.report(result(lease, inspection=found(table())))

        assert answer.verdicts[0].status == lease_service_pb2.REPORT_STATUS_RECORDED
        assert len(await manager.children(parent.id)) == 1

    async def test_that_of_a_child_that_is_gone_is_stale(self, manager: RunningManager) -> None:
        worker, _, lease = await inspecting(manager)
        lease.child_job_id = lease.parent_job_id

        answer = await worker.report(result(lease, inspection=found(table())))

        assert answer.verdicts[0].status == lease_service_pb2.REPORT_STATUS_STALE

    async def test_fifty_thousand_tables_fit(self, manager: RunningManager) -> None:
        worker, parent, lease = await inspecting(manager)
        names = [f"a_schema_of_a_long_name.a_table_of_quite_a_long_name_{number:05}" for number in range(50_000)]
        measures = [f"a_measure_{number}" for number in range(16)]
        tables = [table(name, operations=[0, 1], measures=[1.5] * 16) for name in names]

        async def live() -> None:
            while True:
                await worker.beat(lease)
                await asyncio.sleep(0.2)

        living = asyncio.create_task(live())
        try:
            await worker.report(result(lease, inspection=found(*tables, measures=measures)))
        finally:
            living.cancel()

        assert (await manager.get(parent.id)).counts.total == 100_001
        assert (await worker.acquire())[0].object == names[0]


class TestPlanOfAWholeDatabase:
    """What `overhaul plan --scope database` asks, as a manager takes it."""

    asked = JobRequest(targets=["app"], operations=["vacuum"], scope=Scope.DATABASE)

    async def test_its_worker_tells_the_statements(self, manager: RunningManager) -> None:
        offered = [lease_service_pb2.OfferedOperation(name=name) for name in ("inspect", "vacuum")]
        for one in offered:
            one.locks.add(key="db", exclusive=one.name != "inspect")
        worker = await manager.worker(targets=[served("app", operations=offered)])

        async with ManagerClient(f"127.0.0.1:{manager.port}") as client:
            planned = await plan_inspected(client, self.asked)
            [lease] = await worker.acquire()
            whole = lease_service_pb2.InspectedObject(operations=[0], measures=[6, 7], previews=["VACUUM"])
            await worker.report(result(lease, inspection=found(whole, locks=[])))

        _, child = await manager.children(planned.parent_job.id)
        assert lease.inspection.preview
        assert (child.state, child.reason) == (job_pb2.CHILD_JOB_STATE_SKIPPED, "planned: VACUUM")
        assert dict(child.before) == {"rows": 6, "size_bytes": 7}

    async def test_one_that_cannot_leaves_the_children_without(
        self, manager: RunningManager, capsys: pytest.CaptureFixture[str]
    ) -> None:
        await manager.worker()

        async with ManagerClient(f"127.0.0.1:{manager.port}") as client:
            planned = await plan_inspected(client, self.asked)

        assert planned.parent_job.id == ""
        assert [child.operation for child in planned.child_jobs] == ["vacuum"]
        assert "the statements are not known: target 'app' cannot be inspected" in capsys.readouterr().err


class TestCovered:
    async def test_what_another_operation_does_as_well_is_skipped_with_the_reason(
        self, manager: RunningManager
    ) -> None:
        worker, parent, lease = await inspecting(manager)
        both = table(operations=[0, 1], covered=[0])

        await worker.report(
            result(lease, inspection=found(both, coverages=[coverage(1, 0, "vacuum renews them")]))
        )

        _, vacuum, analyze = await manager.children(parent.id)
        assert (vacuum.operation, vacuum.state) == ("vacuum", job_pb2.CHILD_JOB_STATE_PENDING)
        assert (analyze.operation, analyze.state) == ("analyze", job_pb2.CHILD_JOB_STATE_SKIPPED)
        assert analyze.reason == "left out: vacuum renews them"


class TestRefused:
    @pytest.mark.parametrize(
        ("inspection", "field"),
        [
            (found(table(operations=[2])), "objects[0].operations"),
            (found(table(operations=[-1])), "objects[0].operations"),
            (found(table(operations=[0, 0])), "objects[0].operations[1]"),
            (found(table(measures=[1])), "objects[0].measures"),
            (found(table(measures=[1, math.inf])), "objects[0].measures"),
            (found(table(), measures=["", "b"]), "measures[]"),
            (
                found(
                    table(""),
                ),
                "objects[0].object",
            ),
            (found(table("a" * 513, locks=[])), "objects[0].object"),
            (found(table("a"), table("a")), "objects[1].object"),
            (found(table("a\0b", locks=[])), "objects[0].object"),
            (found(table(size_bytes=-1)), "objects[0].size_bytes"),
            (found(table(locks=[lease_service_pb2.Lock(key="")])), "objects[0].locks[0].key"),
            (found(locks=[DATABASE] * 17), "locks"),
            (found(table(left_out="x" * 5_000)), "objects[0]"),
            (found(only_if=[job_pb2.Threshold(condition="1")] * 101), "only_if"),
            (found(only_if=[job_pb2.Threshold(condition="x" * 1_001)]), "only_if[0].condition"),
            (found(table(previews=["x" * 5_000])), "objects[0]"),
            (found(table(covered=[0])), "objects[0].covered"),
            (found(table(covered=[0]), coverages=[coverage(2, 0)]), "coverages[0]"),
            (found(table(covered=[0]), coverages=[coverage(0, 2)]), "coverages[0]"),
            (found(table(covered=[0]), coverages=[coverage(0, 0)]), "objects[0].covered"),
            (found(table(covered=[0, 1]), coverages=[coverage(0, 1), coverage(1, 0)]), "objects[0].covered"),
            (found(table(covered=[0, 0]), coverages=[coverage(0, 1)]), "objects[0].covered[1]"),
            (found(table(covered=[0]), coverages=[coverage(0, 1, "x" * 5_000)]), "objects[0]"),
            (found(coverages=[coverage(0, 1)] * 65), "coverages"),
        ],
    )
    async def test_wrong_fields_are_named(
        self, manager: RunningManager, inspection: lease_service_pb2.InspectionResult, field: str
    ) -> None:
        worker, parent, lease = await inspecting(manager)

        refused = await refusal(worker.report(result(lease, inspection=inspection)))

        assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
        assert list(refused.fields) == [f"results[0].inspection.{field}"]
        assert len(await manager.children(parent.id)) == 1

    async def test_a_target_that_cannot_be_inspected_is_refused(self, manager: RunningManager) -> None:
        await manager.worker()

        refused = await refusal(manager.create(scope=job_pb2.SCOPE_TABLE))

        assert "cannot be inspected" in refused.fields["scope"]
