import pytest

from manager_service.domain.errors import (
    SessionSupersededError,
    TargetIdentityMismatchError,
    TargetInUseError,
    TargetUnknownError,
    WorkerNotFoundError,
)
from manager_service.domain.fleet import (
    OfferedOperation,
    OptionSpec,
    OptionType,
    SessionState,
    WorkerDirective,
)
from manager_service.domain.model import SECOND
from manager_service.domain.ports import JobStore
from manager_service.store.offered import parsed_operations
from tests.factories import FakeWorker, World, registration, served_target


class TestRegister:
    async def test_it_is_idempotent_by_instance(self, world: World) -> None:
        worker = await world.worker("a")

        assert await world.store.register(worker.registration) == worker.session_id

    async def test_a_repeat_replaces_targets_and_slots(self, world: World) -> None:
        worker = await world.worker("a", "b", slots=3)
        instance = worker.registration.instance_id
        await world.store.register(registration("b", "c", instance_id=instance, slots=5))

        [read] = await world.store.workers(include_gone=False, limit=9)
        assert (read.targets, read.slots) == (("b", "c"), 5)

    async def test_a_target_is_read_as_it_was_registered(self, world: World) -> None:
        offered = OfferedOperation(
            name="vacuum",
            description="d",
            options=(
                OptionSpec(name="into", type=OptionType.STRING, description="where", values=("here", "there")),
                OptionSpec(name="pages", type=OptionType.INTEGER, minimum=0, maximum=2**40),
            ),
        )
        target = served_target("a", operations=(), labels={"env": "test"}, max_parallel=3)
        target = type(target)(**{**{n: getattr(target, n) for n in target.__slots__}, "operations": (offered,)})
        await world.worker(target)

        [read] = await world.store.targets(labels={}, limit=9)
        assert (read.operations, read.labels, read.max_parallel) == ((offered,), {"env": "test"}, 3)
        assert (read.engine, read.identity, read.workers) == ("sqlite", "file:a", ("anna",))

    def test_what_an_older_release_wrote_of_an_option_has_no_limits(self) -> None:
        option = '{"name": "o", "type": "integer", "description": "d"}'
        text = f'[{{"name": "vacuum", "description": "", "options": [{option}], "locks": []}}]'

        [offered] = parsed_operations(text).values()

        assert offered.options == (OptionSpec(name="o", type=OptionType.INTEGER, description="d"),)

    async def test_a_changed_target_is_learnt_anew(self, world: World) -> None:
        await world.worker(served_target("a", labels={"env": "test"}))
        await world.worker(served_target("a", engine_version="4", labels={"env": "live"}))

        [read] = await world.store.targets(labels={"env": "live"}, limit=9)
        assert read.engine_version == "4"
        assert await world.store.targets(labels={"env": "test"}, limit=9) == ()

    async def test_a_name_means_one_database(self, world: World) -> None:
        await world.worker("a")

        with pytest.raises(TargetIdentityMismatchError) as refused:
            await world.worker("new", served_target("a", identity="other"), worker_name="bert")

        assert (refused.value.known, refused.value.given) == ("file:a", "other")
        assert [t.name for t in await world.store.targets(labels={}, limit=9)] == ["a"]
        assert [w.worker_name for w in await world.store.workers(include_gone=True, limit=9)] == ["anna"]

    async def test_a_newer_instance_supersedes_the_older(self, world: World) -> None:
        older, lease = await world.running_child_job()
        world.clock.pass_time(1)
        newer = await world.worker("orders")

        assert world.hints[-1].sessions == {older.session_id}
        [worker] = await world.store.workers(include_gone=True, limit=9)
        assert worker.session_id == newer.session_id
        with pytest.raises(SessionSupersededError):
            await older.register_again()
        assert (await older.beat(lease)).directive is WorkerDirective.TERMINATE
        assert await newer.acquire() == ()

    async def test_a_closed_instance_gets_a_new_session(self, world: World) -> None:
        worker = await world.worker("a")
        closed = worker.session_id
        await worker.acquire()
        await world.store.deregister(closed)

        assert await worker.register_again() != closed
        worker.polls = worker.beats = 0
        await world.parent_job("a")
        assert len(await worker.acquire()) == 1

    async def test_many_targets_are_registered_in_pieces(self, world: World) -> None:
        await world.worker(*(f"t{n}" for n in range(4500)))

        assert len((await world.store.workers(include_gone=False, limit=1))[0].targets) == 4500


class TestWorkers:
    async def test_a_worker_shows_what_it_is_and_does(self, world: World) -> None:
        worker = await world.worker("orders", build="0.1", host="h", pid=7, labels={"zone": "b"}, slots=4)
        await world.leased_child_job(worker)

        [read] = await world.store.workers(include_gone=False, limit=9)
        assert (read.build, read.host, read.pid, read.labels) == ("0.1", "h", 7, {"zone": "b"})
        assert (read.slots, read.slots_used, read.state) == (4, 1, SessionState.READY)
        assert (read.create_time, read.heartbeat_time) == (world.clock.wall(), world.clock.wall())

    async def test_silence_makes_it_stale_then_lost(self, world: World) -> None:
        await world.worker("orders")
        await world.live_on(2 * world.timing.heartbeat_interval + 1)
        assert await self.states(world) == [SessionState.STALE]

        await world.live_on(world.timing.lease_duration)
        assert await self.states(world) == [SessionState.LOST]
        assert await world.store.workers(include_gone=False, limit=9) == ()

    async def test_gone_ones_are_listed_on_request(self, world: World) -> None:
        worker = await world.worker("a")
        await world.store.deregister(worker.session_id)

        assert await world.store.workers(include_gone=False, limit=9) == ()
        assert await self.states(world) == [SessionState.CLOSED]

    async def test_a_page_goes_on_after_a_name(self, world: World) -> None:
        for name in ("carl", "anna", "bert"):
            await world.worker(name, worker_name=name)

        page = await world.store.workers(include_gone=False, after="anna", limit=1)
        assert [w.worker_name for w in page] == ["bert"]

    async def states(self, world: World) -> list[SessionState]:
        return [w.state for w in await world.store.workers(include_gone=True, limit=9)]


class TestDrainWorker:
    async def test_it_takes_no_more_and_is_told(self, world: World) -> None:
        worker = await world.worker("a")
        await world.parent_job("a")

        drained = await world.store.drain_worker("anna", terminate=False)

        assert drained.state is SessionState.DRAINING
        assert world.hints[-1].sessions == {worker.session_id}
        assert await worker.acquire() == ()
        assert (await worker.beat()).directive is WorkerDirective.DRAIN
        assert (await world.store.workers(include_gone=False, limit=1))[0].state is SessionState.DRAINING

    async def test_terminate_is_not_softened(self, world: World) -> None:
        worker = await world.worker("a")
        await world.store.drain_worker("anna", terminate=True)
        await world.store.drain_worker("anna", terminate=False)

        assert (await worker.beat()).directive is WorkerDirective.TERMINATE

    async def test_a_closed_worker_stays_closed(self, world: World) -> None:
        worker = await world.worker("a")
        await world.store.deregister(worker.session_id)

        assert (await world.store.drain_worker("anna", terminate=True)).state is SessionState.CLOSED

    async def test_an_unknown_worker_is_refused(self, store: JobStore) -> None:
        with pytest.raises(WorkerNotFoundError):
            await store.drain_worker("none", terminate=True)


class TestTargets:
    async def test_children_are_counted(self, world: World) -> None:
        worker = await world.worker("a")
        await world.parent_job("a", operations=("vacuum", "analyze"))
        await worker.acquire()

        [read] = await world.store.targets(labels={}, limit=9)
        assert (read.pending, read.live) == (1, 1)

    async def test_they_are_found_by_label_and_page(self, world: World) -> None:
        labelled = [served_target(n, labels={"env": "test", "n": n}) for n in ("a", "b", "c")]
        await world.worker(*labelled, "d")

        assert [t.name for t in await world.store.targets(labels={"env": "test"}, after="a", limit=1)] == ["b"]
        assert [t.name for t in await world.store.targets(labels={"env": "test", "n": "c"}, limit=9)] == ["c"]

    async def test_known_ones_are_read_by_name(self, world: World) -> None:
        await world.worker("a", "b")

        assert set(await world.store.offers(["a", "x"])) == {"a"}

    async def test_their_offers_are_read_whole_or_those_of_some_operations(self, world: World) -> None:
        await world.worker("a")

        whole, some = await world.store.offers(["a"]), await world.store.offers(["a"], frozenset({"vacuum", "x"}))

        assert list(whole["a"]) == ["vacuum", "analyze", "reindex"]
        assert some == {"a": {"vacuum": whole["a"]["vacuum"]}}

    async def test_names_that_look_alike_are_found(self, world: World) -> None:
        await world.worker("orders", "order_items", "users")

        assert (await world.store.target_names_near("ordres"))[0] == "orders"
        assert await world.store.target_names_near("zzz") == ()

    async def test_a_paused_target_starts_nothing(self, world: World) -> None:
        worker = await world.worker("a", "b")
        assert (await world.store.pause_target("a", paused=True)).paused
        await world.parent_job("a", "b")
        assert [lease.target for lease in await worker.acquire()] == ["b"]
        world.ready_hints()

        assert not (await world.store.pause_target("a", paused=False)).paused

        assert world.ready_hints() == {"a": 1}
        assert [lease.target for lease in await worker.acquire()] == ["a"]
        await world.store.pause_target("a", paused=False)
        assert world.ready_hints() == {}

    async def test_unknown_targets_are_refused(self, store: JobStore) -> None:
        with pytest.raises(TargetUnknownError):
            await store.pause_target("none", paused=True)
        with pytest.raises(TargetUnknownError):
            await store.forget_target("none")


class TestForgetTarget:
    async def test_a_served_target_is_in_use(self, world: World) -> None:
        await world.worker("a")

        with pytest.raises(TargetInUseError, match="worker anna serves it"):
            await world.store.forget_target("a")

    async def test_a_needed_target_is_in_use(self, world: World) -> None:
        worker = await world.worker("a")
        await world.parent_job("a")
        await world.store.deregister(worker.session_id)

        with pytest.raises(TargetInUseError, match="1 of its children have not ended"):
            await world.store.forget_target("a")

    async def test_a_forgotten_name_may_mean_another_database(self, world: World) -> None:
        worker = await world.worker(served_target("a", labels={"env": "x"}))
        await world.store.deregister(worker.session_id)

        await world.store.forget_target("a")

        assert await world.store.targets(labels={}, limit=9) == ()
        await world.worker(served_target("a", identity="other"))


class TestPruneSessions:
    async def test_sessions_that_are_long_gone_are_deleted(self, world: World) -> None:
        gone, _ = await world.worker("a"), await world.worker("b", worker_name="bert")
        await world.store.deregister(gone.session_id)
        await world.live_on(10 * SECOND + 1)

        assert await world.store.prune_sessions(age=10 * SECOND) == 1
        assert [w.worker_name for w in await world.store.workers(include_gone=True, limit=9)] == ["bert"]
        await world.live_on(world.timing.lease_duration)
        assert await world.store.prune_sessions(age=10 * SECOND) == 1

    async def test_a_session_that_holds_a_lease_is_kept(self, world: World) -> None:
        worker, _ = await world.expired_lease()
        await world.live_on(world.timing.lease_duration)

        assert await world.store.prune_sessions(age=0) == 0
        assert isinstance(worker, FakeWorker)
