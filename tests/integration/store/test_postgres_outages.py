"""PostgreSQL goes away: calls end soon, nothing is doubled or expires, and the store comes back by itself."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import psycopg
import pytest

from manager_service.app.system import SystemIds
from manager_service.domain.errors import StoreUnavailableError
from manager_service.domain.fleet import Timing
from manager_service.domain.leases import LeaseDirective, ReportStatus
from manager_service.domain.model import SECOND, Instant
from manager_service.domain.ports import JobStore, ParentJobFilter
from manager_service.store import postgresql_door
from manager_service.store.postgresql import PostgresConnection
from manager_service.store.replicated import Moment, PostgresTransactions, open_replicated
from tests.doubles import FakeClock
from tests.factories import World, plan, report_of
from tests.integration.store.integrity import check_integrity
from tests.postgres import PostgresServer, Stop
from tests.postgres_guard import processes_in
from tests.stores import PostgresStores

SOON = 3.0
ROLE = "manager"
BRIEF = Timing(heartbeat_interval=SECOND // 4, lease_duration=SECOND, accept_within=SECOND // 2)


@dataclass(frozen=True, slots=True)
class Served:
    """A job store, and the server that it lies in."""

    server: PostgresServer
    url: str
    world: World

    @property
    def store(self) -> JobStore:
        return self.world.store

    def execute(self, *statements: str) -> None:
        """Run statements as the database's owner."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())


@pytest.fixture(scope="module")
def stores() -> Iterator[PostgresStores]:
    """Lend a server that nobody else depends on."""
    with PostgresServer() as server:
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute(f"CREATE ROLE {ROLE} LOGIN".encode())
        yield PostgresStores(server)


@pytest.fixture
async def served(stores: PostgresStores) -> AsyncIterator[Served]:
    """Open a store as a role that is not the superuser, by the database's own clock."""
    url = stores.new_url()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {ROLE}".encode()
        )
    store = open_replicated(url.replace("postgres@", f"{ROLE}@"), ids=SystemIds(), timing=Timing())
    world = World(store, FakeClock(), Timing())
    store.subscribe(world.hints.append)
    yield Served(stores.server, url, world)
    await store.close()
    stores.drop(url)


async def refused(call: Awaitable[Any], within: float = SOON) -> str:
    """Show that a call ends soon, with the one error that says so, and return why."""
    began = time.monotonic()
    with pytest.raises(StoreUnavailableError) as told:
        await call
    assert time.monotonic() - began < within
    return told.value.why


async def back(call: Callable[[], Awaitable[Any]], within: float = 5.0) -> Any:
    """Make a call until the store is back."""
    deadline = time.monotonic() + within
    while True:
        try:
            return await call()
        except StoreUnavailableError:
            assert time.monotonic() < deadline, "the store does not come back"
            await asyncio.sleep(0.05)


class TestRestarts:
    @pytest.mark.parametrize("how", [Stop.FAST, Stop.IMMEDIATE, Stop.KILLED])
    async def test_a_restart_between_calls_is_not_noticed(self, served: Served, how: Stop) -> None:
        worker, lease = await served.world.running_child_job()
        await asyncio.gather(*(served.store.parent_job(lease.parent_job_id) for _ in range(8)))

        served.server.restart(how)

        await asyncio.gather(*(served.store.parent_job(lease.parent_job_id) for _ in range(8)))
        assert await served.store.expire_leases(limit=100) == 0
        assert await worker.end(lease) is ReportStatus.RECORDED
        await served.world.check(lease.parent_job_id)

    async def test_while_it_is_down_every_verb_ends_soon_and_nothing_is_lost(self, served: Served) -> None:
        worker, lease = await served.world.running_child_job()
        served.server.stop()

        report = report_of(lease)
        for call in (
            worker.acquire(),
            worker.beat(lease),
            served.store.report(worker.session_id, [report], None),
            served.store.create_parent_job(plan("orders")),
            served.store.parent_job(lease.parent_job_id),
            served.store.mark_alive(),
            served.store.expire_leases(limit=9),
            served.store.register(worker.registration),
        ):
            assert await refused(call) != ""
        served.server.start()

        await back(served.store.mark_alive)
        await back(lambda: served.store.parent_job(lease.parent_job_id))
        answer = await served.store.report(worker.session_id, [report], None)
        assert answer.statuses == (ReportStatus.RECORDED,)
        check_integrity(served.url)

    async def test_while_it_is_down_nobody_knocks_at_every_call(self, served: Served) -> None:
        parent = await served.world.parent_job()
        served.server.stop()
        knocks: list[float] = []
        connect = postgresql_door.open_connection

        def knock(*args: Any, **kwargs: Any) -> Any:
            knocks.append(time.monotonic())
            return connect(*args, **kwargs)

        with patch.object(postgresql_door, "open_connection", knock):
            began, calls = time.monotonic(), 0
            while time.monotonic() - began < 1.2:
                await refused(served.store.parent_job(parent.id), within=0.5)
                await refused(served.store.mark_alive(), within=0.5)
                calls += 2
                await asyncio.sleep(0.005)
        served.server.start()

        assert calls > 40
        assert 1 <= len(knocks) <= 4
        await back(lambda: served.store.parent_job(parent.id), within=2)

    async def test_an_outage_longer_than_a_lease_expires_nothing(self, stores: PostgresStores) -> None:
        url = stores.new_url()
        store = open_replicated(url, ids=SystemIds(), timing=BRIEF)
        world = World(store, FakeClock(), BRIEF)
        worker, lease = await world.running_child_job()

        stores.server.stop()
        await asyncio.sleep(1.5)
        stores.server.start()

        assert await back(lambda: store.expire_leases(limit=9)) == 0
        assert await worker.end(lease) is ReportStatus.RECORDED
        await store.close()
        stores.drop(url)

    async def test_a_server_that_stood_still_for_longer_than_a_lease_expires_nothing(
        self, stores: PostgresStores
    ) -> None:
        url = stores.new_url()
        store = open_replicated(url, ids=SystemIds(), timing=BRIEF)
        world = World(store, FakeClock(), BRIEF)
        worker, lease = await world.running_child_job()

        for pid in processes_in(stores.server.folder):
            os.kill(pid, signal.SIGSTOP)
        expiry = asyncio.create_task(store.expire_leases(limit=9))
        await asyncio.sleep(1.5)
        for pid in processes_in(stores.server.folder):
            os.kill(pid, signal.SIGCONT)

        assert await expiry == 0
        assert await worker.end(lease) is ReportStatus.RECORDED
        await store.close()
        stores.drop(url)


class TestCuts:
    @contextmanager
    def cut(self, served: Served, *, committed: bool) -> Iterator[None]:
        """Cut the connection at the next commit of a change: before it, or before its answer."""
        commit, begin = PostgresConnection.commit, PostgresConnection.begin
        writing, done = threading.local(), threading.Event()

        def noted(connection: PostgresConnection) -> None:
            writing.now = True
            begin(connection)

        def broken(connection: PostgresConnection) -> None:
            if not getattr(writing, "now", False) or done.is_set():
                commit(connection)
                return
            done.set()
            if committed:
                commit(connection)
            assert served.server.cut(served.url)
            commit(connection)

        with (
            patch.object(PostgresConnection, "begin", noted),
            patch.object(PostgresConnection, "commit", broken),
        ):
            yield
        assert done.is_set()

    @pytest.mark.parametrize("committed", [False, True])
    async def test_a_create_is_repeated(self, served: Served, committed: bool) -> None:
        wanted = plan("a", "b", request_id="one")
        with self.cut(served, committed=committed):
            await refused(served.store.create_parent_job(wanted))

        again = await served.store.create_parent_job(wanted)
        assert again.existing is committed
        assert (await served.store.create_parent_job(wanted)).parent_job.id == again.parent_job.id
        check_integrity(served.url)

    @pytest.mark.parametrize("committed", [False, True])
    async def test_a_poll_is_repeated(self, served: Served, committed: bool) -> None:
        worker = await served.world.worker("a", "b", slots=1)
        await served.world.parent_job("a", "b")
        poll = worker.poll()
        with self.cut(served, committed=committed):
            await refused(served.store.acquire(worker.session_id, poll))

        leases = await served.store.acquire(worker.session_id, poll)
        assert len(leases) == 1
        assert await served.store.acquire(worker.session_id, poll) == leases
        check_integrity(served.url)

    @pytest.mark.parametrize("committed", [False, True])
    async def test_a_report_is_repeated(self, served: Served, committed: bool) -> None:
        worker, lease = await served.world.running_child_job()
        report = report_of(lease)
        with self.cut(served, committed=committed):
            await refused(served.store.report(worker.session_id, [report], None))

        answer = await served.store.report(worker.session_id, [report], None)
        assert answer.statuses == ((ReportStatus.ALREADY_RECORDED if committed else ReportStatus.RECORDED),)
        await served.world.check(lease.parent_job_id)
        check_integrity(served.url)

    @pytest.mark.parametrize("committed", [False, True])
    async def test_calls_that_share_the_commit_are_all_told(self, served: Served, committed: bool) -> None:
        worker = await served.world.worker("a", "b", "c")
        await served.world.parent_job("a", "b", "c")
        reports = [report_of(lease) for lease in await worker.acquire()]
        with self.cut(served, committed=committed):
            answers = await asyncio.gather(
                *(served.store.report(worker.session_id, [one], None) for one in reports), return_exceptions=True
            )
        assert any(isinstance(answer, StoreUnavailableError) for answer in answers)
        assert not any(isinstance(answer, psycopg.Error) for answer in answers)

        again = [await served.store.report(worker.session_id, [one], None) for one in reports]
        assert all(answer.statuses[0] is not ReportStatus.STALE for answer in again)
        check_integrity(served.url)

    async def test_connections_that_are_cut_all_the_time_double_nothing(self, served: Served) -> None:
        worker = await served.world.worker(*(f"t{n}" for n in range(8)), slots=2)
        parent = await served.world.parent_job(*(f"t{n}" for n in range(8)), operations=("vacuum", "analyze"))
        stop = asyncio.Event()

        async def cut() -> None:
            while not stop.is_set():
                await asyncio.to_thread(served.server.cut, served.url)
                await asyncio.sleep(0.02)

        cutting = asyncio.create_task(cut())
        ended: list[str] = []
        while len(ended) < 16:
            poll = partial(served.store.acquire, worker.session_id, worker.poll(2))
            for lease in await back(poll, within=20):
                tell = partial(served.store.report, worker.session_id, [report_of(lease)], None)
                answer = await back(tell, within=20)
                assert answer.statuses[0] in (ReportStatus.RECORDED, ReportStatus.ALREADY_RECORDED)
                ended.append(lease.child_job_id)
        stop.set()
        await cutting

        assert len(set(ended)) == 16
        await back(lambda: served.world.check(parent.id))
        check_integrity(served.url)

    async def test_a_manager_that_stood_still_in_a_transaction_is_told_that_it_lost_it(
        self, served: Served
    ) -> None:
        worker, lease = await served.world.running_child_job()
        with patch.dict(postgresql_door.SETTINGS, {"idle_in_transaction_session_timeout": "200ms"}):
            served.server.cut(served.url)
            commit = PostgresConnection.commit

            def stand_still(connection: PostgresConnection) -> None:
                time.sleep(0.6)
                commit(connection)

            with patch.object(PostgresConnection, "commit", stand_still):
                await refused(worker.end(lease))

        assert await worker.end(lease) is ReportStatus.RECORDED

    async def test_a_creation_that_is_cut_off_half_way_leaves_nothing(self, served: Served) -> None:
        many = [f"t{number}" for number in range(6_000)]
        new_id, made = SystemIds.new_id, 0

        def cutting(ids: SystemIds) -> str:
            nonlocal made
            made += 1
            if made == 5_000:
                served.server.cut(served.url)
            return new_id(ids)

        with patch.object(SystemIds, "new_id", cutting):
            await refused(served.store.create_parent_job(plan(*many)), within=10)

        after = await back(lambda: served.store.create_parent_job(plan(*many)))

        assert after.parent_job.counts.pending == len(many)
        assert [job.id for job in await served.store.parent_jobs(ParentJobFilter(), limit=9)] == [
            after.parent_job.id
        ]


class TestRefusals:
    async def test_too_many_connections(self, served: Served) -> None:
        parent = await served.world.parent_job()
        served.execute(f"ALTER ROLE {ROLE} CONNECTION LIMIT 0")
        served.server.cut(served.url)

        assert "too many connections" in await refused(served.store.parent_job(parent.id))
        assert "too many connections" in await refused(served.store.mark_alive())
        served.execute(f"ALTER ROLE {ROLE} CONNECTION LIMIT -1")

        await back(lambda: served.store.parent_job(parent.id))
        await back(served.store.mark_alive)

    @pytest.mark.parametrize(
        ("take", "give"),
        [
            (
                f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {ROLE}",
                f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {ROLE}",
            ),
            ("REVOKE USAGE ON SCHEMA public FROM PUBLIC", "GRANT USAGE ON SCHEMA public TO PUBLIC"),
            (f"ALTER ROLE {ROLE} NOLOGIN", f"ALTER ROLE {ROLE} LOGIN"),
        ],
    )
    async def test_a_role_that_lost_its_rights(self, served: Served, take: str, give: str) -> None:
        parent = await served.world.parent_job()
        served.execute(take)
        served.server.cut(served.url)

        await refused(served.store.parent_job(parent.id))
        await refused(served.world.parent_job())
        await refused(served.store.mark_alive())
        served.execute(give)

        await back(lambda: served.store.parent_job(parent.id))
        await back(served.store.mark_alive)
        await back(served.world.parent_job)

    async def test_a_full_disk(self, served: Served) -> None:
        worker, lease = await served.world.running_child_job()
        served.execute(
            "CREATE FUNCTION no_space() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$",
            "CREATE TRIGGER no_space BEFORE INSERT ON events EXECUTE FUNCTION no_space()",
        )

        report = report_of(lease)
        assert "could not extend" in await refused(served.store.report(worker.session_id, [report], None))
        assert "could not extend" in await refused(served.world.parent_job("a", "b"))
        assert (await worker.beat(lease)).leases == (LeaseDirective.CONTINUE,)
        check_integrity(served.url)
        served.execute("DROP TRIGGER no_space ON events")

        answer = await served.store.report(worker.session_id, [report], None)
        assert answer.statuses == (ReportStatus.RECORDED,)
        check_integrity(served.url)

    async def test_a_standby_is_no_store(self, served: Served) -> None:
        parent = await served.world.parent_job()
        served.execute(f"ALTER ROLE {ROLE} SET default_transaction_read_only = on")
        served.server.cut(served.url)

        await refused(served.store.mark_alive())
        await served.store.parent_job(parent.id)
        served.execute(f"ALTER ROLE {ROLE} RESET default_transaction_read_only")

        await back(served.store.mark_alive)


class TestWaiting:
    async def test_for_the_time_keeps_no_other_connection_waiting(self, served: Served) -> None:
        worker, lease = await served.world.running_child_job()
        waits, gate = threading.Event(), threading.Event()
        checked = PostgresTransactions._checked

        def slowly(transactions: PostgresTransactions, asked: Moment) -> Instant:
            if not waits.is_set():
                waits.set()
                gate.wait(2 * SOON)
            return checked(transactions, asked)

        with patch.object(PostgresTransactions, "_checked", slowly):
            upkeep = asyncio.create_task(served.store.fail_overdue(limit=1))
            assert await asyncio.to_thread(waits.wait, SOON)
            try:
                async with asyncio.timeout(SOON):
                    assert await worker.end(lease) is ReportStatus.RECORDED
            finally:
                gate.set()
            assert await upkeep == 0
