"""A worker and several managers over one store: it spreads its calls, and moves when one drains or dies."""

import asyncio
import time

import pytest

from overhaul.v1 import job_pb2
from tests.worker_doubles.lease_server import LeaseServer
from tests.worker_doubles.replicas import Replica, list_of, replicas
from tests.worker_doubles.worker_rig import Rig, rig


async def work(r: Rig, number: int) -> None:
    """Have operations run one after the other."""
    for _ in range(number):
        [lease] = await r.server.offer("noop")
        await r.server.until(lambda lease=lease: lease in r.server.results)


def forget(managers: list[Replica]) -> None:
    for replica in managers:
        replica.calls.clear()


async def all_are_used(r: Rig, managers: list[Replica]) -> None:
    forget(managers)
    await r.server.until(lambda: all(replica.calls["Heartbeat"] for replica in managers))
    forget(managers)
    await work(r, 3 * len(managers))
    assert all(replica.calls["ReportResults"] for replica in managers)


class TestSpread:
    async def test_calls_of_every_kind_go_to_all(self) -> None:
        server = LeaseServer(heartbeat=0.05, window=0.05)
        async with replicas(server) as managers, rig(server, managers=list_of(managers)) as r:
            await server.until(lambda: sum(replica.calls["Heartbeat"] for replica in managers) == 12)
            await work(r, 30)

        for kind in ("AcquireLeases", "Heartbeat", "ReportResults"):
            shares = [replica.calls[kind] for replica in managers]
            assert min(shares) >= 0.2 * sum(shares), (kind, shares)
        assert len(server.calls["RegisterWorker"]) == 1

    async def test_a_name_stands_for_all_its_addresses(self) -> None:
        server = LeaseServer(heartbeat=0.05)
        async with replicas(server, 1) as [manager], rig(server, managers=f"dns:///{manager.address}") as r:
            await work(r, 3)

        assert manager.calls["Watch"] > 0


class TestADrainingManager:
    async def test_it_gets_no_new_call_and_none_is_lost(self) -> None:
        server = LeaseServer(heartbeat=0.1, window=0.2)
        async with replicas(server) as managers, rig(server, managers=list_of(managers)) as r:
            await all_are_used(r, managers)
            await managers[0].drain()
            # What hung there has ended by then.
            await asyncio.sleep(0.5)
            forget(managers)
            await work(r, 12)
            await asyncio.sleep(0.5)

        assert not managers[0].calls
        assert all(replica.calls["Heartbeat"] for replica in managers[1:])
        assert "unreachable" not in r.logs.getvalue()

    async def test_it_is_used_again_when_it_is_back(self) -> None:
        server = LeaseServer(heartbeat=0.1, window=0.2)
        async with replicas(server) as managers, rig(server, managers=list_of(managers)) as r:
            await managers[0].drain()
            await managers[0].die()
            await work(r, 3)
            await managers[0].start()

            await all_are_used(r, managers)


class TestADeadManager:
    @pytest.mark.parametrize("kind", ["Heartbeat", "AcquireLeases"])
    async def test_a_call_that_hangs_there_moves(self, kind: str) -> None:
        # They hang for so long that they cannot have ended by themselves.
        server = LeaseServer(heartbeat=60, window=60)
        async with replicas(server) as managers, rig(server, managers=list_of(managers)) as r:
            await server.until(lambda: any(replica.calls[kind] for replica in managers))
            [holding] = [replica for replica in managers if replica.calls[kind]]
            forget(managers)
            await holding.die()
            began = time.monotonic()
            await server.until(lambda: any(replica.calls[kind] for replica in managers))
            await work(r, 1)

            assert time.monotonic() - began < 5
        assert len(server.calls["RegisterWorker"]) == 1

    async def test_an_operation_that_runs_goes_on_and_is_reported_elsewhere(self) -> None:
        server = LeaseServer(heartbeat=0.3, lease=3)
        async with replicas(server) as managers, rig(server, managers=list_of(managers)) as r:
            [lease] = await server.offer("block")
            await server.until(lambda: r.engine.running == 1)
            for replica in managers[:2]:
                await replica.die()
                beats = len(server.calls["Heartbeat"])
                await server.until(lambda beats=beats: len(server.calls["Heartbeat"]) > beats + 2)
            r.engine.go_on.set()
            await server.until(lambda: lease in server.results)

        assert server.results[lease].outcome == job_pb2.OUTCOME_COMPLETED
        assert r.engine.began == ["child-1"]
        assert r.engine.interrupts == []
