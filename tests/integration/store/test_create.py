import pytest

from manager_service.domain.errors import ParentJobNotFoundError, RequestIdReusedError
from manager_service.domain.events import BulkChange, BulkChangeKind, ParentJobChange
from manager_service.domain.model import PlannedChild, RetryPolicy
from manager_service.domain.ports import JobStore, ParentJobFilter
from manager_service.domain.states import FailureMode, FailurePolicy, ParentJobState
from tests.doubles import CountingIds
from tests.factories import World, plan, served_target


class TestCreateParentJob:
    async def test_a_parent_job_and_its_children_are_there_at_once(self, world: World) -> None:
        parent = await world.parent_job("orders", "users", operations=("vacuum", "analyze"))

        children = await world.children(parent)
        assert parent.state is ParentJobState.RUNNING
        assert (parent.counts.pending, parent.counts.total, parent.sequence, parent.round) == (4, 4, 1, 1)
        assert [(c.target, c.operation, c.position) for c in children] == [
            ("orders", "vacuum", 0),
            ("orders", "analyze", 1),
            ("users", "vacuum", 2),
            ("users", "analyze", 3),
        ]
        await world.check(parent.id)

    async def test_the_first_event_tells_the_creation(self, world: World) -> None:
        parent = await world.parent_job("orders", "users")

        [event] = await world.all_events(parent.id)
        assert event.change == BulkChange(kind=BulkChangeKind.CREATED, affected=2, counts=parent.counts)

    async def test_the_spec_is_read_as_it_was_written(self, world: World) -> None:
        asked = plan(
            priority=7,
            max_parallel=3,
            timeout=5,
            deadline=world.clock.wall() + 10**9,
            labels={"team": "a"},
            retry_policy=RetryPolicy(max_failures=9),
            failure_policy=FailurePolicy(mode=FailureMode.MAX_FAILED, max_failed_children=2),
        )

        created = await world.store.create_parent_job(asked)

        assert (await world.store.parent_job(created.parent_job.id)).spec == asked.spec

    async def test_a_parent_job_without_children_is_completed_at_once(self, world: World) -> None:
        parent = await world.parent_job(children=[])

        [created, ended] = await world.all_events(parent.id)
        assert parent.state is ParentJobState.COMPLETED
        assert isinstance(created.change, BulkChange)
        assert isinstance(ended.change, ParentJobChange)
        await world.check(parent.id)

    async def test_the_same_request_answers_the_same_parent_job(self, store: JobStore) -> None:
        first = await store.create_parent_job(plan(request_id="r1"))

        again = await store.create_parent_job(plan(request_id="r1"))

        assert again.existing
        assert not first.existing
        assert again.parent_job == first.parent_job

    async def test_another_request_with_the_same_request_id_is_refused(self, store: JobStore) -> None:
        first = await store.create_parent_job(plan(request_id="r1"))

        with pytest.raises(RequestIdReusedError) as refused:
            await store.create_parent_job(plan(request_id="r1", request_hash="other"))

        assert refused.value.parent_job_id == first.parent_job.id

    async def test_the_parent_job_of_a_request_is_found(self, store: JobStore) -> None:
        first = await store.create_parent_job(plan(request_id="r1", request_hash="h"))

        found = await store.requested_parent_job("r1", "h")
        unknown = await store.requested_parent_job("r2", "h")
        with pytest.raises(RequestIdReusedError):
            await store.requested_parent_job("r1", "other")

        assert found == first.parent_job
        assert unknown is None

    async def test_without_a_request_id_each_call_makes_another(self, store: JobStore) -> None:
        first, second = await store.create_parent_job(plan()), await store.create_parent_job(plan())

        assert first.parent_job.id != second.parent_job.id

    async def test_listeners_learn_of_claimable_children(self, world: World) -> None:
        parent = await world.parent_job("orders", "users", operations=("vacuum", "analyze"))

        assert world.hints[-1].parents == {parent.id}
        assert world.ready_hints() == {"orders": 1, "users": 1}

    async def test_many_children_are_made_in_pieces(self, world: World) -> None:
        children = [PlannedChild(target=f"t{n % 50}", operation="vacuum", lane=f"t{n}") for n in range(4500)]

        parent = await world.parent_job(children=children)

        assert (parent.counts.pending, parent.sequence) == (4500, 1)

    async def test_the_largest_child_of_many_starts_first_then_the_oldest(self, world: World) -> None:
        sizes = {2_999: 9, 4_001: 7}
        children = [
            PlannedChild(target="orders", operation="vacuum", lane=f"{n}", size=sizes.get(n, 0))
            for n in range(4_500)
        ]
        await world.parent_job(children=children)
        worker = await world.worker(served_target("orders", max_parallel=9, locks=()))

        leases = [(await worker.acquire(1))[0] for _ in range(4)]

        started = [(await world.store.child_job(lease.child_job_id))[0].position for lease in leases]
        assert started == [2_999, 4_001, 0, 1]

    async def test_texts_come_back_as_they_were(self, world: World) -> None:
        odd = ("a\\b", "\\N", "\\.", "tab\there", "line\nfeed\r", "é 😀", "", "'\"")
        children = [
            PlannedChild(target=f"t{text}", operation="vacuum", lane=text, object=text, options={"o": text})
            for text in odd
        ]
        parent = await world.parent_job(children=children)

        made = await world.children(parent)

        assert [(c.target, c.object, c.options) for c in made] == [(f"t{t}", t, {"o": t}) for t in odd]

    @pytest.mark.parametrize("made", [10, 3_000])
    async def test_a_creation_that_breaks_off_leaves_nothing(
        self, world: World, ids: CountingIds, made: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        last, count = ids.count + made, CountingIds.new_id

        def new_id(self: CountingIds) -> str:
            if self.count >= last:
                raise RuntimeError("no more ids")
            return count(self)

        children = [PlannedChild(target=f"t{n}", operation="vacuum", lane=f"{n}") for n in range(4_500)]
        with monkeypatch.context() as patched:
            patched.setattr(CountingIds, "new_id", new_id)
            with pytest.raises(RuntimeError, match="no more ids"):
                await world.store.create_parent_job(plan(children=children))

        after = await world.parent_job(children=children)

        assert [job.id for job in await world.store.parent_jobs(ParentJobFilter(), limit=9)] == [after.id]
        assert after.counts.pending == 4_500

    async def test_an_unknown_parent_job_is_not_found(self, store: JobStore) -> None:
        with pytest.raises(ParentJobNotFoundError):
            await store.parent_job("none")
