"""Targets that workers hold back, over the wire: who is granted what, and what a client reads."""

import asyncio
import time

import grpc

from overhaul.v1 import job_pb2, lease_service_pb2
from tests.contract.manager_harness import RunningManager, refusal

BUSY = "31 active sessions, at most 20"


async def test_a_waiting_child_tells_the_reason_until_it_is_let_go(manager: RunningManager) -> None:
    worker = await manager.worker()
    parent = await manager.create(operations=("vacuum",))
    await worker.beat(held_back={"app": BUSY})
    [child] = await manager.children(parent.id)

    assert (child.wait_reason, child.wait_detail) == (job_pb2.WAIT_REASON_THROTTLED, BUSY)
    assert await worker.acquire() == []

    await worker.beat()
    [child] = await manager.children(parent.id)
    assert child.wait_reason == job_pb2.WAIT_REASON_UNSPECIFIED
    assert len(await worker.acquire()) == 1


async def test_a_poll_that_hangs_is_answered_when_the_target_is_let_go(manager: RunningManager) -> None:
    worker = await manager.worker()
    await worker.beat(held_back={"app": BUSY})
    await manager.create(operations=("vacuum",))
    poll = asyncio.ensure_future(worker.acquire(wait=9))
    await asyncio.sleep(0.1)
    assert not poll.done()

    began = time.monotonic()
    await worker.beat()

    assert len(await poll) == 1
    assert time.monotonic() - began < 0.8, "it was woken, and did not only look again"


async def test_a_heartbeat_is_not_refused_for_its_reasons(manager: RunningManager) -> None:
    worker = await manager.worker("a", "b", "c")
    parents = [await manager.create(name, operations=("vacuum",)) for name in ("a", "b", "c")]
    await worker.beat(held_back={"a": "x" * 500, "b": "one\n\x1b[31mtwo", "c": " \t", "gone": BUSY})

    told = [(await manager.children(parent.id))[0].wait_detail for parent in parents]

    assert told == ["x" * 200, "one[31mtwo", "no reason was given"]


async def test_one_that_goes_beyond_the_limits_is_refused(manager: RunningManager) -> None:
    worker = await manager.worker()

    nameless = await refusal(worker.beat(held_back={"": BUSY}))
    many = await refusal(worker.beat(held_back={f"t{number}": "x" for number in range(10_001)}))

    assert (nameless.code, nameless.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert nameless.fields == {"held_back[0].target": "must not be empty"}
    assert many.fields == {"held_back": "has 10001 entries; at most 10000 are allowed"}


async def test_an_older_worker_that_tells_nothing_holds_nothing_back(manager: RunningManager) -> None:
    worker = await manager.worker()
    await manager.create(operations=("vacuum",))
    old = lease_service_pb2.HeartbeatRequest(session_id=worker.session_id, sequence=1)

    await manager.leases.Heartbeat(old)

    assert len(await worker.acquire()) == 1
