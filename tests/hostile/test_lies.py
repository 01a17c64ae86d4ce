"""A worker that lies about sessions, leases and attempts gets nothing by it, and harms no other."""

import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from overhaul.v1 import job_pb2 as job
from overhaul.v1 import lease_service_pb2 as leases
from tests.contract.manager_harness import (
    NOBODY,
    RunningManager,
    Worker,
    failed,
    refusal,
    result,
    running,
    served,
    settings_on,
)

STALE = leases.REPORT_STATUS_STALE
LOST = leases.LEASE_DIRECTIVE_LOST


@dataclass
class Scene:
    """An honest worker that holds a lease, and a liar that knows all about it and serves the same target."""

    manager: RunningManager
    parent: str
    honest: Worker
    lease: leases.Lease
    liar: Worker

    async def unharmed(self) -> None:
        """Assert that the honest worker still holds its lease, and can complete what it runs exactly once."""
        answer = await self.honest.beat(self.lease)
        assert [item.directive for item in answer.leases] == [leases.LEASE_DIRECTIVE_CONTINUE]
        report = await self.honest.report(result(self.lease))
        assert [item.status for item in report.verdicts] == [leases.REPORT_STATUS_RECORDED]
        child = await self.manager.child(self.lease.child_job_id)
        assert (child.child_job.state, child.child_job.attempts) == (job.CHILD_JOB_STATE_COMPLETED, 1)
        assert (child.child_job.failures, child.child_job.losses) == (0, 0)
        assert child.attempts[0].worker_name == self.honest.name


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with running(settings_on(tmp_path)) as manager:
        honest = await manager.worker("app", name="honest")
        liar = await manager.worker("app", name="liar")
        parent = await manager.create("app", operations=("vacuum", "analyze"))
        [lease] = await honest.acquire(most=1)
        scene = Scene(manager, parent.id, honest, lease, liar)
        yield scene
        await scene.unharmed()


def changed(lease: leases.Lease, **fields: Any) -> leases.Lease:
    copy = leases.Lease()
    copy.CopyFrom(lease)
    for name, value in fields.items():
        setattr(copy, name, value)
    return copy


LIES: dict[str, Callable[[leases.Lease], leases.Lease]] = {
    "the lease of another": lambda lease: lease,
    "a lease that never was": lambda lease: changed(lease, lease_id=str(uuid.uuid4())),
    "a later attempt": lambda lease: changed(lease, attempt=lease.attempt + 1),
    "the last attempt there can be": lambda lease: changed(lease, attempt=2**31 - 1),
    "a child that never was": lambda lease: changed(lease, child_job_id=NOBODY),
    "nothing but quotes": lambda lease: changed(lease, lease_id="' OR 1=1 --", child_job_id="' OR 1=1 --"),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
class TestALease:
    async def test_that_is_not_the_workers_own_cannot_be_reported(self, scene: Scene, lie: Any) -> None:
        claimed = lie(scene.lease)

        for item in (result(claimed), failed(claimed), result(claimed)):
            answer = await scene.liar.report(item)
            assert [verdict.status for verdict in answer.verdicts] == [STALE]

    async def test_that_is_not_the_workers_own_cannot_be_renewed(self, scene: Scene, lie: Any) -> None:
        answer = await scene.liar.beat(lie(scene.lease))

        assert [item.directive for item in answer.leases] == [LOST]

    async def test_that_is_not_the_workers_own_takes_no_log(self, scene: Scene, lie: Any) -> None:
        claimed = lie(scene.lease)
        request = leases.AppendLogsRequest(
            session_id=scene.liar.session_id,
            child_job_id=claimed.child_job_id,
            lease_id=claimed.lease_id,
            attempt=claimed.attempt,
            entries=[job.LogEntry(level="info", message="it was me")],
        )

        assert (await scene.manager.leases.AppendLogs(request)).lost


class TestAReport:
    async def test_of_an_attempt_that_is_not_the_lease_is_stale(self, scene: Scene) -> None:
        wrong = [changed(scene.lease, attempt=2), changed(scene.lease, lease_id=NOBODY)]

        answer = await scene.honest.report(*(result(item) for item in wrong))

        assert [verdict.status for verdict in answer.verdicts] == [STALE, STALE]

    async def test_twice_in_one_call_is_recorded_once(self, scene: Scene) -> None:
        [mine] = await self._other_lease(scene)

        answer = await scene.liar.report(result(mine), failed(mine), result(mine))

        statuses = [verdict.status for verdict in answer.verdicts]
        assert statuses == [leases.REPORT_STATUS_RECORDED, STALE, STALE]

    async def test_repeated_with_another_outcome_is_stale(self, scene: Scene) -> None:
        [mine] = await self._other_lease(scene)
        report_id = str(uuid.uuid4())
        await scene.liar.report(result(mine, report_id=report_id))

        again = await scene.liar.report(failed(mine, report_id=report_id))

        assert [verdict.status for verdict in again.verdicts] == [STALE]
        child = await scene.manager.child(mine.child_job_id)
        assert child.child_job.state == job.CHILD_JOB_STATE_COMPLETED

    async def test_of_nonsense_keeps_the_good_ones_back_too(self, scene: Scene) -> None:
        [mine] = await self._other_lease(scene)

        refused = await refusal(scene.liar.report(result(mine), result(scene.lease, report_id="not one")))

        assert refused.fields.keys() == {"results[1].report_id"}
        assert (await scene.manager.child(mine.child_job_id)).child_job.state == job.CHILD_JOB_STATE_LEASED

    async def _other_lease(self, scene: Scene) -> list[leases.Lease]:
        await scene.liar.register()
        scene.liar.targets = ("other",)
        await scene.liar.register()
        await scene.manager.create("other", operations=("vacuum",))
        return await scene.liar.acquire(most=1)


class TestASession:
    @pytest.mark.parametrize("session_id", ["", NOBODY, "'; DROP TABLE sessions; --", "s" * 10_000])
    async def test_that_never_was_is_unknown(self, scene: Scene, session_id: str) -> None:
        own, scene.liar.session_id = scene.liar.session_id, session_id
        calls = (scene.liar.poll(), scene.liar.beat(scene.lease), scene.liar.report(result(scene.lease)))

        assert {(await refusal(call)).reason for call in calls} == {"SESSION_UNKNOWN"}
        assert session_id != own

    async def test_that_was_closed_stays_closed(self, scene: Scene) -> None:
        request = leases.DeregisterWorkerRequest(session_id=scene.liar.session_id)
        await scene.manager.leases.DeregisterWorker(request)

        assert (await refusal(scene.liar.poll())).reason == "SESSION_UNKNOWN"
        await scene.manager.leases.DeregisterWorker(request)

    async def test_with_another_identity_for_a_known_target_is_not_opened(self, scene: Scene) -> None:
        request = scene.liar.registration(targets=[served("app", identity="mine now")])

        refused = await refusal(scene.manager.leases.RegisterWorker(request))

        assert refused.reason == "TARGET_IDENTITY_MISMATCH"

    async def test_of_the_future_is_not_spoken_with(self, scene: Scene) -> None:
        for version in (0, 2, -1, 2**31 - 1):
            refused = await refusal(
                scene.manager.leases.RegisterWorker(scene.liar.registration(protocol_version=version))
            )
            assert refused.reason == "PROTOCOL_VERSION_UNSUPPORTED"


class TestAPoll:
    async def test_gets_no_more_than_the_slots_whatever_it_asks_for(self, scene: Scene) -> None:
        names = [f"t{number}" for number in range(6)]
        scene.liar.slots, scene.liar.targets = 2, tuple(names)
        await scene.liar.register()
        await scene.manager.create(*names, operations=("vacuum",))

        granted = [lease for _ in range(3) for lease in await scene.liar.acquire(most=1_000)]

        assert len(granted) == 2

    async def test_repeated_or_from_the_past_claims_nothing_new(self, scene: Scene) -> None:
        scene.liar.targets = ("t1", "t2")
        await scene.liar.register()
        await scene.manager.create("t1", "t2", operations=("vacuum",))
        first = await scene.liar.acquire(most=1, sequence=2**62)

        assert await scene.liar.acquire(most=1, sequence=2**62) == first
        assert await scene.liar.acquire(most=1, sequence=2**62 - 1) == []
        assert await scene.liar.acquire(most=1, sequence=1) == []

    async def test_for_a_target_that_another_holds_gets_nothing(self, scene: Scene) -> None:
        assert await scene.liar.acquire(most=4) == []
