import pytest

from manager_service.domain.errors import (
    ChildJobNotFoundError,
    LogGapError,
    ParentJobNotFoundError,
    SessionUnknownError,
)
from manager_service.domain.fleet import Lock
from manager_service.domain.leases import Lease, LogBatch
from manager_service.domain.model import ChildJob, LogEntry, PlannedChild
from manager_service.domain.ports import ChildJobFilter, JobStore, ParentJobFilter
from manager_service.domain.states import ChildJobState, Outcome, ParentJobState, WaitReason
from tests.factories import FakeWorker, World, served_target


class TestParentJobs:
    async def test_the_newest_come_first_and_pages_go_on(self, world: World) -> None:
        made = [(await world.parent_job("a")).id for _ in range(5)]

        first = await world.store.parent_jobs(ParentJobFilter(), limit=3)
        rest = await world.store.parent_jobs(ParentJobFilter(), after=first[-1].id, limit=3)

        assert [p.id for p in (*first, *rest)] == made[::-1]

    async def test_the_oldest_can_come_first(self, world: World) -> None:
        made = [(await world.parent_job("a")).id for _ in range(3)]

        read = await world.store.parent_jobs(ParentJobFilter(oldest_first=True), after=made[0], limit=9)

        assert [p.id for p in read] == made[1:]

    async def test_filters_are_joined_by_and(self, world: World) -> None:
        wanted = await world.parent_job("a", "b", labels={"team": "x", "env": "test"})
        await world.parent_job("a", labels={"team": "x"})
        await world.parent_job("c", labels={"team": "x", "env": "test"})
        ended = await world.parent_job("a", labels={"team": "x", "env": "test"})
        await world.store.cancel_parent_job(ended.id, "")

        both = {"team": "x", "env": "test"}
        states = frozenset({ParentJobState.RUNNING, ParentJobState.COMPLETED})
        read = await world.store.parent_jobs(ParentJobFilter(labels=both, target="a", states=states), limit=9)

        assert [p.id for p in read] == [wanted.id]


class TestChildJobs:
    async def test_pages_go_on_by_position(self, world: World) -> None:
        parent = await world.parent_job("a", "b", "c")

        page = await world.store.child_jobs(parent.id, ChildJobFilter(), after=0, limit=1)

        assert [c.target for c in page] == ["b"]

    async def test_a_filter_by_state_knows_what_is_live(self, world: World) -> None:
        worker = await world.worker("a", "b", "c")
        parent = await world.parent_job("a", "b", "c", "d")
        first, _second, third = await worker.acquire()
        await worker.beat(first)
        await worker.end(third)

        found = {
            state: [c.target for c in await self.read(world, parent.id, state)]
            for state in (
                ChildJobState.RUNNING,
                ChildJobState.LEASED,
                ChildJobState.COMPLETED,
                ChildJobState.PENDING,
            )
        }
        assert found == {
            ChildJobState.RUNNING: ["a"],
            ChildJobState.LEASED: ["b"],
            ChildJobState.COMPLETED: ["c"],
            ChildJobState.PENDING: ["d"],
        }

    async def read(self, world: World, parent_id: str, state: ChildJobState) -> tuple[ChildJob, ...]:
        return await world.store.child_jobs(parent_id, ChildJobFilter(states=frozenset({state})), limit=9)

    async def test_filters_by_target_and_operation(self, world: World) -> None:
        parent = await world.parent_job("a", "b", operations=("vacuum", "analyze"))

        wanted = ChildJobFilter(target="b", operation="analyze")
        [child] = await world.store.child_jobs(parent.id, wanted, limit=9)
        assert (child.target, child.operation) == ("b", "analyze")

    async def test_unknown_ids_are_not_found(self, store: JobStore) -> None:
        with pytest.raises(ParentJobNotFoundError):
            await store.child_jobs("none", ChildJobFilter(), limit=1)
        with pytest.raises(ParentJobNotFoundError):
            await store.events("none", after=0, limit=1)
        with pytest.raises(ChildJobNotFoundError):
            await store.child_job("none")
        with pytest.raises(ChildJobNotFoundError):
            await store.logs("none", attempt=0, offset=0, limit=1)


class TestEveryWaitingChildHasAWaitReason:
    async def reasons(self, world: World, parent_id: str) -> list[tuple[WaitReason | None, str]]:
        children = await world.store.child_jobs(parent_id, ChildJobFilter(), limit=99)
        return [(c.wait_reason, c.wait_detail) for c in children]

    async def test_nobody_serves_the_target(self, world: World) -> None:
        parent = await world.parent_job("a")
        assert await self.reasons(world, parent.id) == [(WaitReason.NO_WORKER, "")]

        await world.worker(served_target("a", operations=("analyze",)))
        assert await self.reasons(world, parent.id) == [(WaitReason.NO_WORKER, "")]

    async def test_its_worker_was_lost(self, world: World) -> None:
        await world.worker("a")
        parent = await world.parent_job("a")
        assert await self.reasons(world, parent.id) == [(None, "")]
        await world.live_on(world.timing.lease_duration + 1)

        assert await self.reasons(world, parent.id) == [(WaitReason.NO_WORKER, "")]

    async def test_another_child_goes_before(self, world: World) -> None:
        await world.worker("a")
        parent = await world.parent_job("a", operations=("vacuum", "analyze", "reindex"))

        assert await self.reasons(world, parent.id) == [
            (None, ""),
            (WaitReason.PREDECESSOR, "vacuum on a"),
            (WaitReason.PREDECESSOR, "analyze on a"),
        ]

    async def test_the_target_is_paused(self, world: World) -> None:
        await world.worker("a")
        parent = await world.parent_job("a")
        await world.store.pause_target("a", paused=True)

        assert await self.reasons(world, parent.id) == [(WaitReason.TARGET_PAUSED, "")]

    async def test_the_target_is_busy(self, world: World) -> None:
        await world.leased_child_job()
        parent = await world.parent_job("orders")

        assert await self.reasons(world, parent.id) == [(WaitReason.TARGET_BUSY, "vacuum on anna")]

    async def test_another_name_of_the_same_database_is_busy(self, world: World) -> None:
        lock = Lock(key="file", exclusive=True)
        worker = await world.worker(served_target("a", locks=[lock]), served_target("b", locks=[lock]))
        await world.parent_job("a")
        await worker.acquire()
        parent = await world.parent_job("b")

        assert await self.reasons(world, parent.id) == [(WaitReason.TARGET_BUSY, "vacuum on anna")]

    async def test_shared_keys_do_not_make_it_busy(self, world: World) -> None:
        lock = Lock(key="file", exclusive=False)
        worker = await world.worker(served_target("a", locks=[lock], max_parallel=2))
        await world.parent_job("a")
        await worker.acquire()
        parent = await world.parent_job("a")

        assert await self.reasons(world, parent.id) == [(None, "")]

    async def test_the_parent_job_is_at_its_limit(self, world: World) -> None:
        worker = await world.worker("a", "b")
        parent = await world.parent_job("a", "b", max_parallel=1)
        await worker.acquire()

        assert (await self.reasons(world, parent.id))[1] == (WaitReason.PARENT_LIMIT, "")

    async def test_all_slots_are_full(self, world: World) -> None:
        worker = await world.worker("a", "b", slots=1)
        parent = await world.parent_job("a", "b")
        await worker.acquire()

        assert (await self.reasons(world, parent.id))[1] == (WaitReason.SLOTS_FULL, "")

    async def test_the_only_worker_drains(self, world: World) -> None:
        await world.worker("a")
        parent = await world.parent_job("a")
        await world.store.drain_worker("anna", terminate=False)

        assert await self.reasons(world, parent.id) == [(WaitReason.NO_WORKER, "")]

    async def test_a_page_costs_a_fixed_number_of_statements(self, world: World) -> None:
        children = [PlannedChild(target=f"t{n % 9}", operation="vacuum", lane=f"t{n % 9}") for n in range(300)]
        parent = await world.parent_job(children=children)

        assert len(await self.reasons(world, parent.id)) == 99


class TestLogs:
    def batch(self, worker: FakeWorker, lease: Lease, offset: int, *messages: str) -> LogBatch:
        return LogBatch(
            session_id=worker.session_id,
            child_job_id=lease.child_job_id,
            lease_id=lease.lease_id,
            attempt=lease.attempt,
            offset=offset,
            entries=tuple(LogEntry(time=1, level="info", message=m) for m in messages),
        )

    async def test_entries_are_read_as_they_were_written(self, world: World) -> None:
        worker, lease = await world.leased_child_job()
        assert await world.store.append_logs(self.batch(worker, lease, 0, "a", "b")) == 2
        assert world.hints[-1].logs == {lease.child_job_id}
        assert await world.store.append_logs(self.batch(worker, lease, 2, "c")) == 3

        page = await world.store.logs(lease.child_job_id, attempt=0, offset=1, limit=9)
        assert [e.message for e in page.entries] == ["b", "c"]
        assert (page.attempt, page.offset, page.finished) == (1, 1, False)

    async def test_it_is_idempotent_by_offset(self, world: World) -> None:
        worker, lease = await world.leased_child_job()
        for _ in range(2):
            assert await world.store.append_logs(self.batch(worker, lease, 0, "a", "b")) == 2
        assert await world.store.append_logs(self.batch(worker, lease, 1, "b", "c")) == 3

        page = await world.store.logs(lease.child_job_id, attempt=1, offset=0, limit=9)
        assert [e.message for e in page.entries] == ["a", "b", "c"]

    async def test_a_gap_is_refused(self, world: World) -> None:
        worker, lease = await world.leased_child_job()

        with pytest.raises(LogGapError) as refused:
            await world.store.append_logs(self.batch(worker, lease, 4, "x"))

        assert refused.value.next_offset == 0

    async def test_entries_of_another_session_are_dropped(self, world: World) -> None:
        _, lease = await world.leased_child_job()
        other = await world.worker("orders", worker_name="other")

        assert await world.store.append_logs(self.batch(other, lease, 0, "x")) is None

    async def test_entries_of_a_lost_lease_are_dropped(self, world: World) -> None:
        worker, lease = await world.lost_lease()

        assert await world.store.append_logs(self.batch(worker, lease, 0, "x")) is None

    async def test_the_end_of_the_attempt_finishes_its_log(self, world: World) -> None:
        worker, lease = await world.leased_child_job()
        await worker.end(lease, Outcome.RELEASED)
        assert world.hints[-1].logs == {lease.child_job_id}

        assert (await world.store.logs(lease.child_job_id, attempt=1, offset=0, limit=9)).finished
        assert not (await world.store.logs(lease.child_job_id, attempt=2, offset=0, limit=9)).finished

    async def test_a_child_without_attempts_has_an_empty_log(self, world: World) -> None:
        child = await world.child_job()

        page = await world.store.logs(child.id, attempt=0, offset=0, limit=9)
        assert (page.attempt, page.entries, page.finished) == (0, (), False)

    async def test_an_unknown_session_is_refused(self, world: World) -> None:
        worker, lease = await world.leased_child_job()
        worker.session_id = "none"

        with pytest.raises(SessionUnknownError):
            await world.store.append_logs(self.batch(worker, lease, 0, "x"))
