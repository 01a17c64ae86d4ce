"""Workers and managers of different releases: one release apart they work, further apart the older is named."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from manager_service.domain import fleet
from tests.contract.manager_harness import RunningManager, running, settings_on
from tests.worker_doubles.lease_server import LeaseServer, Mischief
from tests.worker_doubles.worker_rig import INSTANCE, rig
from worker_service.domain.errors import ManagerTooOldError, RegistrationRefusedError
from worker_service.domain.manager import Registration
from worker_service.manager_client import GrpcManager, connect, protocol
from worker_service.worker import Timing

RELEASE = 7
"""The newest version that one side speaks in these tests; the other's is told by how far it is away."""

REGISTRATION = Registration(worker_name="w", instance_id=INSTANCE, build="0", host="h", pid=1, slots=1)


@pytest.fixture
async def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RunningManager]:
    monkeypatch.setattr(fleet, "TAKEN", fleet.Versions(newest=RELEASE))
    async with running(settings_on(tmp_path)) as started:
        yield started


@pytest.fixture
async def worker(manager: RunningManager) -> AsyncIterator[GrpcManager]:
    address = f"127.0.0.1:{manager.port}"
    client = GrpcManager(calls=connect(address), heartbeats=connect(address))
    yield client
    await client.close()


def speak(monkeypatch: pytest.MonkeyPatch, newest: int) -> None:
    monkeypatch.setattr(protocol, "SPOKEN", protocol.Versions(newest=newest))


class TestAManagerAndAWorker:
    @pytest.mark.parametrize("newer", [-1, 0, 1])
    async def test_one_release_apart_work_together(
        self, worker: GrpcManager, monkeypatch: pytest.MonkeyPatch, newer: int
    ) -> None:
        speak(monkeypatch, RELEASE + newer)

        assert (await worker.register(REGISTRATION)).session_id

    async def test_a_worker_two_releases_older_is_to_be_upgraded(
        self, worker: GrpcManager, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        speak(monkeypatch, RELEASE - 2)
        why = "This worker speaks version 4 to 5 of the protocol, and the manager takes 6 to 7: upgrade the worker"

        with pytest.raises(RegistrationRefusedError, match=why):
            await worker.register(REGISTRATION)

    async def test_a_manager_two_releases_older_is_to_be_upgraded(
        self, worker: GrpcManager, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        speak(monkeypatch, RELEASE + 2)
        why = (
            "This worker speaks version 8 to 9 of the protocol, and the manager takes 6 to 7: upgrade the manager"
        )

        with pytest.raises(ManagerTooOldError, match=why):
            await worker.register(REGISTRATION)

    def test_the_newest_versions_of_both_sides_are_one(self) -> None:
        assert fleet.TAKEN.newest == protocol.SPOKEN.newest
        assert fleet.TAKEN.oldest == protocol.SPOKEN.oldest == 1


def takes(newest: int, **metadata: str) -> Mischief:
    """Refuse a registration, as a manager does that takes no newer version than this."""
    reason = "PROTOCOL_VERSION_UNSUPPORTED"
    metadata = {"supported": str(newest), **metadata}
    return Mischief(code=grpc.StatusCode.FAILED_PRECONDITION, reason=reason, metadata=metadata)


class TestAWorker:
    async def test_speaks_to_an_older_manager_as_that_does(self, monkeypatch: pytest.MonkeyPatch) -> None:
        speak(monkeypatch, RELEASE)
        server = LeaseServer()
        # The managers of the first release named one version only.
        server.mischief["RegisterWorker"].append(takes(RELEASE - 1))
        async with rig(server):
            versions = [request.protocol_version for request in server.calls["RegisterWorker"]]

        assert versions == [RELEASE, RELEASE - 1]

    async def test_waits_for_managers_that_are_too_old_and_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        speak(monkeypatch, RELEASE)
        server = LeaseServer()
        server.mischief["RegisterWorker"].extend([takes(RELEASE - 2)] * 3)
        async with rig(server) as r:
            pass

        logs = r.logs.getvalue()
        assert logs.count("manager too old; trying on") == 1
        assert "upgrade the manager" in logs
        assert "unreachable" not in logs

    async def test_tells_at_the_end_of_its_patience_that_they_are_too_old(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        speak(monkeypatch, RELEASE)
        server = LeaseServer()
        server.mischief["RegisterWorker"].extend([takes(RELEASE - 2)] * 1_000)
        async with rig(server, timing=Timing(connect_timeout=0.3), ready=False) as r:
            with pytest.raises(ManagerTooOldError, match="upgrade the manager"):
                await r.ends()

    async def test_that_is_too_old_ends_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        speak(monkeypatch, RELEASE)
        server = LeaseServer()
        server.mischief["RegisterWorker"].append(takes(RELEASE + 2, oldest_supported=str(RELEASE + 1)))
        async with rig(server, ready=False) as r:
            with pytest.raises(RegistrationRefusedError, match="upgrade the worker"):
                await r.ends()

        assert len(server.calls["RegisterWorker"]) == 1

    async def test_keeps_what_it_runs_when_the_managers_become_too_new_for_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        speak(monkeypatch, RELEASE)
        server = LeaseServer(heartbeat=0.1)
        async with rig(server) as r:
            [lease] = await server.offer("block")
            await server.until(lambda: r.engine.running == 1)
            too_new = takes(RELEASE + 2, oldest_supported=str(RELEASE + 1))
            server.mischief["RegisterWorker"].extend([too_new] * 2)
            await r.worker._sessions.refresh()
            await asyncio.sleep(0.2)
            r.engine.go_on.set()
            await server.until(lambda: lease in server.results)

        assert r.engine.interrupts == []
