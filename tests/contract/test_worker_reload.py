"""Other targets for a worker that serves: what is registered, and what becomes of leases on others."""

import asyncio

import grpc
import pytest

from overhaul.v1 import job_pb2
from overhaul.v1 import lease_service_pb2 as wire
from tests.worker_doubles.fake_engine import FakeEngine
from tests.worker_doubles.lease_server import LeaseServer, Mischief
from tests.worker_doubles.worker_rig import URL, Rig, rig
from worker_service.catalogue import Served
from worker_service.domain.errors import RegistrationRefusedError, SessionClosedError
from worker_service.domain.target import Target


def serving(engine: FakeEngine, *names: str) -> list[Served]:
    """Name targets; ``app`` is the one that the rig begins with."""
    return [
        Served(
            engine=engine,
            target=Target(name="app", url=URL, engine="fake", labels={"team": "shop"})
            if name == "app"
            else Target(name=name, url=f"fake://{name}", engine="fake"),
        )
        for name in names
    ]


def registered(r: Rig) -> list[list[str]]:
    return [[target.name for target in request.targets] for request in r.server.calls["RegisterWorker"]]


async def retarget(r: Rig, *names: str) -> None:
    async with asyncio.timeout(5):
        await r.worker.retarget(serving(r.engine, *names))


class TestOtherTargets:
    async def test_they_are_registered_under_the_same_instance_and_served(self) -> None:
        async with rig(LeaseServer()) as r:
            await retarget(r, "app", "late")
            [lease] = await r.server.offer("noop", target="late")
            await r.server.until(lambda: r.server.results)
            first, second = r.server.calls["RegisterWorker"]

        assert registered(r) == [["app"], ["app", "late"]]
        assert first.instance_id == second.instance_id
        assert r.server.results[lease].outcome == job_pb2.OUTCOME_COMPLETED

    async def test_what_runs_on_one_that_is_removed_goes_on_to_its_end(self) -> None:
        server = LeaseServer(heartbeat=0.1)
        async with rig(server) as r:
            [lease] = await server.offer("block")
            await server.until(lambda: r.engine.running == 1)
            await retarget(r, "other")
            beats = len(server.calls["Heartbeat"])
            await server.until(lambda: len(server.calls["Heartbeat"]) > beats + 2)
            assert [held.lease_id for held in server.calls["Heartbeat"][-1].leases] == [lease]
            r.engine.go_on.set()
            await server.until(lambda: server.results)

        assert server.results[lease].outcome == job_pb2.OUTCOME_COMPLETED
        assert r.engine.interrupts == []

    async def test_a_lease_on_one_that_is_removed_is_handed_back(self) -> None:
        async with rig(LeaseServer()) as r:
            await retarget(r, "other")
            [lease] = await r.server.offer("noop", target="app")
            await r.server.until(lambda: r.server.results)

        assert r.server.results[lease].released == wire.RELEASE_REASON_UNSUITABLE
        assert r.engine.began == []

    async def test_those_that_stay_are_not_described_again(self) -> None:
        async with rig(LeaseServer()) as r:
            r.engine.unavailable = True
            await retarget(r, "app", "late")

        assert registered(r)[-1] == ["app"]

    async def test_one_that_is_another_database_now_is_described_anew(self) -> None:
        async with rig(LeaseServer()) as r:
            target = Target(name="app", url="fake://elsewhere", engine="fake", identity="another")
            await r.worker.retarget([Served(target=target, engine=r.engine)])

        assert [target.identity for target in r.server.calls["RegisterWorker"][-1].targets] == ["another"]

    async def test_an_outage_is_outlasted(self) -> None:
        server = LeaseServer()
        server.mischief["RegisterWorker"].append(Mischief())
        async with rig(server) as r:
            server.mischief["RegisterWorker"].extend([Mischief()] * 5)
            await retarget(r, "app", "late")

        assert registered(r)[-1] == ["app", "late"]


class TestARefusal:
    @pytest.mark.parametrize("reason", ["TARGET_IDENTITY_MISMATCH", ""])
    async def test_those_before_are_served_on(self, reason: str) -> None:
        server = LeaseServer()
        code = grpc.StatusCode.FAILED_PRECONDITION if reason else grpc.StatusCode.INVALID_ARGUMENT
        async with rig(server) as r:
            server.mischief["RegisterWorker"].append(Mischief(code=code, reason=reason))
            with pytest.raises(RegistrationRefusedError):
                await retarget(r, "other")
            [lease] = await server.offer("noop", target="app")
            await server.until(lambda: server.results)

        assert server.results[lease].outcome == job_pb2.OUTCOME_COMPLETED

    async def test_a_worker_that_stops_takes_no_others(self) -> None:
        async with rig(LeaseServer()) as r:
            await r.server.offer("block")
            await r.server.until(lambda: r.engine.running == 1)
            r.worker.lifecycle.finish()
            await asyncio.sleep(0.05)
            with pytest.raises(SessionClosedError):
                await retarget(r, "other")

        assert registered(r) == [["app"]]

    async def test_nor_does_one_that_was_superseded_meanwhile(self) -> None:
        server = LeaseServer()
        async with rig(server) as r:
            refusal = Mischief(code=grpc.StatusCode.FAILED_PRECONDITION, reason="SESSION_SUPERSEDED")
            server.mischief["RegisterWorker"].append(refusal)
            with pytest.raises(SessionClosedError):
                await retarget(r, "other")

            assert await r.ends()
