"""What a worker tells of targets that are held back, and what becomes of leases on them."""

import asyncio
import time
from contextlib import AbstractAsyncContextManager

from overhaul.v1 import job_pb2 as job
from overhaul.v1 import lease_service_pb2 as wire
from tests.worker_doubles.fake_engine import ThrottlingEngine
from tests.worker_doubles.lease_server import LeaseServer
from tests.worker_doubles.worker_rig import Rig, rig
from worker_service.domain.throttle import Throttle
from worker_service.worker import Timing

BUSY = "2 active sessions, at most 1"
QUICK = Timing(drain_grace=5, stop_patience=0.5, report_patience=0.5, throttle=0.005)


def engine(says: str = "") -> ThrottlingEngine:
    made = ThrottlingEngine()
    made.says = says
    return made


async def told(r: Rig, **reasons: str) -> None:
    """Wait for a heartbeat that holds back these targets and no others."""
    await r.server.until(
        lambda: (
            r.server.calls["Heartbeat"]
            and {one.target: one.reason for one in r.server.calls["Heartbeat"][-1].held_back} == reasons
        )
    )


def throttled(server: LeaseServer, made: ThrottlingEngine) -> AbstractAsyncContextManager[Rig]:
    return rig(server, timing=QUICK, engine=made, throttle=Throttle(max_active_sessions=1))


class TestHeartbeats:
    async def test_they_tell_what_is_held_back_and_when_it_is_let_go_at_once(self) -> None:
        made = engine(BUSY)
        async with throttled(LeaseServer(heartbeat=5), made) as r:
            await told(r, app=BUSY)
            began = time.monotonic()
            made.says = ""
            await told(r)

            assert time.monotonic() - began < 2, "it did not wait for the hanging heartbeat's end"

    async def test_those_of_a_worker_without_throttles_tell_nothing(self) -> None:
        async with rig(LeaseServer()) as r:
            await r.server.until(lambda: len(r.server.calls["Heartbeat"]) > 1)

            assert not any(beat.held_back for beat in r.server.calls["Heartbeat"])

    async def test_a_look_that_hangs_delays_none_of_them(self) -> None:
        made = engine()
        made.hang.clear()
        async with throttled(LeaseServer(heartbeat=0.02), made) as r:
            await r.server.until(lambda: len(r.server.calls["Heartbeat"]) > 5)

            assert (made.looks, len(r.server.calls["AcquireLeases"])) == (1, 1)


class TestALease:
    async def test_granted_all_the_same_it_is_handed_back_with_the_reason(self) -> None:
        async with throttled(LeaseServer(), engine(BUSY)) as r:
            await told(r, app=BUSY)

            [lease_id] = await r.server.offer("noop")
            await r.server.until(lambda: lease_id in r.server.results)

            result = r.server.results[lease_id]
            assert (result.outcome, result.released) == (job.OUTCOME_RELEASED, wire.RELEASE_REASON_UNSUITABLE)
            assert result.reason == BUSY
            assert not r.engine.began

    async def test_granted_before_the_first_look_it_waits_for_that(self) -> None:
        made = engine()
        made.hang.clear()
        async with throttled(LeaseServer(), made) as r:
            [lease_id] = await r.server.offer("noop")
            await r.server.until(lambda: lease_id in r.server.live)
            await asyncio.sleep(0.05)
            assert not r.engine.began

            made.hang.set()
            await r.server.until(lambda: lease_id in r.server.results)

            assert r.server.results[lease_id].outcome == job.OUTCOME_COMPLETED


class TestARunningOperation:
    async def test_waits_between_two_statements_and_tells_for_what(self) -> None:
        made = engine()
        async with throttled(LeaseServer(heartbeat=0.1, lease=0.8), made) as r:
            [lease_id] = await r.server.offer("steps")
            await r.server.until(lambda: r.engine.began)
            made.says = BUSY

            # Renewed as ever: for longer than the lease would have lasted.
            await r.server.until(lambda: phases(r).count(f"held back: {BUSY}") >= 10)
            made.says = ""
            r.engine.go_on.set()
            await r.server.until(lambda: lease_id in r.server.results)

            assert r.server.results[lease_id].outcome == job.OUTCOME_COMPLETED
            assert r.server.logs[lease_id][0] == f"waits: {BUSY}"
            assert r.server.logs[lease_id][1].startswith("goes on after ")

    async def test_is_cancelled_at_once_while_it_waits(self) -> None:
        made = engine()
        async with throttled(LeaseServer(), made) as r:
            [lease_id] = await r.server.offer("steps")
            await r.server.until(lambda: r.engine.began)
            made.says = BUSY
            await r.server.until(lambda: phases(r)[-1:] == [f"held back: {BUSY}"])

            began = time.monotonic()
            await r.server.cancel(lease_id)
            await r.server.until(lambda: lease_id in r.server.results)

            assert r.server.results[lease_id].outcome == job.OUTCOME_CANCELLED
            assert time.monotonic() - began < 2


def phases(r: Rig) -> list[str]:
    """Return what the heartbeats said of the only lease, one after the other."""
    return [lease.progress.phase for beat in r.server.calls["Heartbeat"] for lease in beat.leases]
