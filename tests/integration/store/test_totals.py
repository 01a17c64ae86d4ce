"""What attempts did in all, kept with their parent job."""

import asyncio
from dataclasses import replace
from typing import Any

from manager_service.domain.inspection import INSPECT
from manager_service.domain.ports import ParentJobFilter
from manager_service.domain.states import Outcome
from manager_service.domain.totals import NOTHING, LockWaiter, Totals
from tests.factories import World, failure, report_of, served_target
from tests.integration.store.managers import Managers

BILLING = LockWaiter(application="billing", user="app", object="public.orders", lock_mode="RowExclusiveLock")
SHRUNK: dict[str, Any] = {"before": {"size_bytes": 9.0, "pages": 3.0}, "after": {"size_bytes": 4.0, "pages": 1.0}}


class TestTotals:
    async def test_they_are_nothing_at_first(self, world: World) -> None:
        parent = await world.parent_job()

        assert parent.totals == NOTHING
        assert (await world.store.parent_job(parent.id)).totals == NOTHING

    async def test_they_add_up_what_children_did(self, world: World) -> None:
        worker = await world.worker()
        parent = await world.parent_job(operations=("vacuum", "analyze"))
        told = {"lock_wait_seconds": 0.25, "blocking_seconds": 1.5}
        [lease] = await worker.acquire(1)
        await worker.end(
            lease,
            before={"file_bytes": 100.0, "wal_bytes": 10.0},
            after={"file_bytes": 60.0, "wal_bytes": 0.0, **told},
        )
        [lease] = await worker.acquire(1)
        await worker.end(lease, before={"file_bytes": 60.0}, after={"file_bytes": 67.0, "lock_wait_seconds": 0.5})

        found = (await world.store.parent_job(parent.id)).totals
        assert found == Totals(
            attempts=2,
            sized=2,
            reclaimed=50.0,
            grown=7.0,
            waited=2,
            lock_wait_seconds=0.75,
            blocked=1,
            blocking_seconds=1.5,
        )
        assert [one.totals for one in await world.store.parent_jobs(ParentJobFilter(), limit=10)] == [found]

    async def test_what_was_not_measured_is_not_counted(self, world: World) -> None:
        worker, lease = await world.leased_child_job()
        await worker.end(lease, before={"rows": 3.0}, after={"rows": 3.0})

        assert (await world.store.parent_job(lease.parent_job_id)).totals == Totals(attempts=1)

    async def test_a_failed_attempt_counts_as_well(self, world: World) -> None:
        worker, lease = await world.leased_child_job()
        await worker.end(lease, Outcome.FAILED, retry_after=0, **SHRUNK)
        [lease] = await worker.acquire(1)
        await worker.end(lease, before={"size_bytes": 4.0}, after={"size_bytes": 3.0})

        found = (await world.store.parent_job(lease.parent_job_id)).totals
        assert (found.attempts, found.reclaimed, found.grown) == (2, 6.0, 0.0)

    async def test_a_repeated_report_counts_once(self, world: World) -> None:
        worker, lease = await world.leased_child_job()
        report = report_of(lease, **SHRUNK)
        for _ in range(2):
            await worker.store.report(worker.session_id, [report], None)

        assert (await world.store.parent_job(lease.parent_job_id)).totals.reclaimed == 5.0

    async def test_an_inspection_is_no_maintenance(self, world: World) -> None:
        worker = await world.worker(served_target("app", operations=(INSPECT,)))
        parent = await world.parent_job("app", operations=(INSPECT,))
        [lease] = await worker.acquire(1)
        await worker.end(lease, Outcome.FAILED, failure=failure(retryable=False), **SHRUNK)

        assert (await world.store.parent_job(parent.id)).totals == NOTHING

    async def test_a_retry_keeps_them_and_goes_on(self, world: World) -> None:
        worker, lease = await world.leased_child_job()
        waiter = replace(BILLING, seconds=2.0, sessions=1)
        await worker.end(lease, Outcome.FAILED, failure=failure(retryable=False), waiters=(waiter,), **SHRUNK)
        await world.store.retry_parent_job(lease.parent_job_id)
        reopened = (await world.store.child_job(lease.child_job_id))[0]
        [lease] = await worker.acquire(1)
        await worker.end(lease, **SHRUNK)

        assert (reopened.before, reopened.waiters) == ({}, ())
        assert (await world.store.parent_job(lease.parent_job_id)).totals.reclaimed == 10.0

    async def test_who_waited_is_kept_with_the_child_and_added_up(self, world: World) -> None:
        worker = await world.worker()
        parent = await world.parent_job(operations=("vacuum", "analyze"))
        cron = replace(BILLING, application="cron", seconds=0.5, sessions=1)
        [lease] = await worker.acquire(1)
        await worker.end(lease, waiters=(cron, replace(BILLING, seconds=2.5, sessions=3)), **SHRUNK)
        first = (await world.store.child_job(lease.child_job_id))[0]
        [lease] = await worker.acquire(1)
        await worker.end(lease, waiters=(replace(BILLING, seconds=1.0, sessions=2),), **SHRUNK)

        found = (await world.store.parent_job(parent.id)).totals
        assert [one.application for one in first.waiters] == ["billing", "cron"]
        assert found.waiters == (replace(BILLING, seconds=3.5, sessions=3), cron)

    async def test_they_go_with_the_parent_job(self, world: World) -> None:
        worker, lease = await world.leased_child_job()
        await worker.end(lease, waiters=(replace(BILLING, seconds=1.0),), **SHRUNK)

        await world.store.delete_parent_job(lease.parent_job_id)

        assert await world.store.parent_jobs(ParentJobFilter(), limit=10) == ()


class TestSeveralManagers:
    async def test_reports_at_once_are_all_added(self, managers: Managers) -> None:
        first, *_ = managers
        worlds = list(managers)
        names = [f"t{number}" for number, _ in enumerate(worlds)]
        workers = [await world.worker(name, worker_name=name) for name, world in zip(names, worlds, strict=True)]
        parent = await first.parent_job(*names, operations=("vacuum", "analyze", "reindex"))
        for _ in range(3):
            leases = [(await worker.acquire(1))[0] for worker in workers]
            await asyncio.gather(
                *(
                    worker.end(lease, waiters=(replace(BILLING, seconds=1.0, sessions=1),), **SHRUNK)
                    for worker, lease in zip(workers, leases, strict=True)
                )
            )

        found = (await first.store.parent_job(parent.id)).totals
        assert (found.attempts, found.reclaimed) == (9, 45.0)
        assert found.waiters == (replace(BILLING, seconds=9.0, sessions=1),)
