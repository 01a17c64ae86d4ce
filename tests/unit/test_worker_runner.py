import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from tests.worker_doubles.fake_engine import FakeEngine
from worker_service.catalogue import Catalogue, Identity, Served
from worker_service.domain.manager import (
    HeartbeatAnswer,
    HeldLease,
    Lease,
    LeaseDirective,
    Session,
    WorkerDirective,
    WorkerState,
)
from worker_service.domain.operation import Operation
from worker_service.domain.outcome import Outcome
from worker_service.domain.target import Target
from worker_service.execution import Execution
from worker_service.heartbeat import Heart
from worker_service.inventory import Inventory
from worker_service.runner import Runner
from worker_service.sessions import Sessions

IDENTITY = Identity(worker_name="w", instance_id="i", build="0", host="h", pid=1, slots=2, labels={})
LEASE_DURATION = 10.0


def lease(name: str = "noop") -> Lease:
    return Lease(
        lease_id="lease-1",
        operation=Operation(name=name, target="app", child_job_id="child-1", parent_job_id="parent-1"),
        lease_duration=timedelta(seconds=LEASE_DURATION),
        accept_within=timedelta(seconds=5),
    )


async def until(true: Any) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - threads change what is waited for
            await asyncio.sleep(0.002)


class Desk:
    """Takes what ended, as a reporter does that never sends."""

    def __init__(self) -> None:
        self.taken: list[Execution] = []

    def put(self, execution: Execution) -> None:
        self.taken.append(execution)

    async def flush(self, execution: Execution) -> None:
        execution.logs.close()


class Bench:
    """A runner on the fake engine."""

    def __init__(self) -> None:
        self.engine = FakeEngine()
        self.desk = Desk()
        self.inventory = Inventory(2)
        target = Target(name="app", url="fake://app", engine="fake")
        desk: Any = self.desk
        self.runner = Runner(
            slots=2,
            catalogue=Catalogue(identity=IDENTITY, served=[Served(target=target, engine=self.engine)]),
            inventory=self.inventory,
            shipper=desk,
            reporter=desk,
            takes_leases=lambda: True,
            clock=lambda: 0.0,
        )


@pytest.fixture
async def bench() -> Any:
    bench = Bench()
    yield bench
    bench.engine.go_on.set()
    await until(lambda: not bench.runner.busy)
    bench.runner.close()


class TestRunner:
    async def test_a_lease_that_is_held_does_not_begin_again(self, bench: Bench) -> None:
        first = bench.runner.begin(lease("block"), 0.0)
        again = bench.runner.begin(lease("block"), 0.0)
        await until(lambda: bench.engine.running)
        bench.engine.go_on.set()
        await until(lambda: not bench.runner.busy)

        assert again is None
        assert bench.engine.began == ["child-1"]
        assert bench.desk.taken == [first]

    async def test_the_report_does_not_wait_for_the_log(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        execution = bench.runner.begin(lease("block"), 0.0)
        assert execution is not None
        taken_when_logged: list[list[Execution]] = []
        monkeypatch.setattr(execution, "log_end", lambda: taken_when_logged.append(list(bench.desk.taken)))
        bench.engine.go_on.set()
        await until(lambda: taken_when_logged)

        assert taken_when_logged == [[execution]]

    async def test_what_was_handed_back_is_not_reported_again_when_it_ends(self, bench: Bench) -> None:
        execution = bench.runner.begin(lease("deaf"), 0.0)
        assert execution is not None
        await until(lambda: bench.engine.running)
        bench.runner.abandon()
        bench.engine.go_on.set()
        await until(lambda: not bench.runner.busy)

        assert bench.desk.taken == [execution]
        assert execution.report is not None
        assert execution.report.result.outcome is Outcome.RELEASED


class SlowManager:
    """Answers a heartbeat when most of the lease is over."""

    def __init__(self) -> None:
        self.now = 100.0

    async def register(self, _: Any) -> Session:
        return Session(
            session_id="s",
            heartbeat_interval=timedelta(seconds=3),
            lease_duration=timedelta(seconds=LEASE_DURATION),
            poll_window=timedelta(seconds=30),
        )

    async def heartbeat(self, _: str, *, leases: Sequence[HeldLease], **__: Any) -> HeartbeatAnswer:
        self.now += 0.9 * LEASE_DURATION
        return HeartbeatAnswer(
            directives={held.lease_id: LeaseDirective.CONTINUE for held in leases},
            directive=WorkerDirective.NONE,
            lease_duration=timedelta(seconds=LEASE_DURATION),
        )


async def test_a_lease_is_renewed_from_when_the_heartbeat_was_sent() -> None:
    slow = SlowManager()
    manager: Any = slow
    catalogue = Catalogue(identity=IDENTITY, served=[])
    sessions = Sessions(manager=manager, registration=catalogue.registration, on_superseded=lambda: None)
    await sessions.open()
    inventory = Inventory(1)
    execution = Execution(lease(), fence=slow.now + 1, accept_by=slow.now, clock=lambda: slow.now)
    inventory.add(execution)
    heart = Heart(
        manager=manager,
        sessions=sessions,
        inventory=inventory,
        state=lambda: WorkerState.READY,
        obey=lambda _: None,
        clock=lambda: slow.now,
    )
    sent = slow.now

    heart.hurry()
    await heart.beat()

    assert slow.now > sent + 0.8 * LEASE_DURATION
    assert execution.control.fence == sent + LEASE_DURATION
