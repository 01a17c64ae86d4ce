import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from overhaul.v1 import job_pb2, job_service_pb2, lease_service_pb2
from tests.contract.manager_harness import NOBODY, RunningManager, Worker, refusal, result, running, settings_on


def sequences(messages: list[Any]) -> list[int]:
    return [message.event.sequence for message in messages if message.WhichOneof("update") == "event"]


async def run_all(worker: Worker) -> None:
    """Complete everything that waits for the worker."""
    while leases := await worker.acquire():
        await worker.complete(*leases)


async def _all_of(watch: Any) -> list[Any]:
    return [message async for message in watch]


class TestWatchParentJob:
    async def test_it_begins_with_a_snapshot_and_ends_after_the_final_state(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        parent = await manager.create()
        call = manager.watch(parent.id)
        first = await call.read()
        await run_all(worker)

        messages = [message async for message in _rest(call)]

        assert first.snapshot.parent_job.id == parent.id
        assert not first.snapshot.resynced
        assert sequences(messages) == list(range(2, 2 + len(messages)))
        assert messages[-1].event.parent_job.state == job_pb2.PARENT_JOB_STATE_COMPLETED
        assert await call.code() is grpc.StatusCode.OK

    async def test_from_zero_it_tells_every_event(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        parent = await manager.create(operations=("vacuum",))
        await run_all(worker)

        messages = [message async for message in manager.watch(parent.id, 0)]

        assert sequences(messages) == list(range(1, len(messages) + 1))
        created = messages[0].event.bulk
        assert created.kind == job_service_pb2.BULK_CHANGE_KIND_CREATED
        assert (created.affected, created.counts.total) == (1, 1)
        changes = [message.event.child_job for message in messages if message.event.HasField("child_job")]
        assert changes[-1].state == job_pb2.CHILD_JOB_STATE_COMPLETED
        assert changes[-1].verdict == job_pb2.VERDICT_EFFECTIVE
        assert (changes[-1].operation, changes[-1].target) == ("vacuum", "app")

    async def test_one_who_takes_several_events_together_hears_the_same(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        parent = await manager.create()
        await run_all(worker)
        singly = [message.event for message in [message async for message in manager.watch(parent.id, 0)]]
        request = job_service_pb2.WatchParentJobRequest(
            parent_job_id=parent.id, after_sequence=0, several_events=True
        )

        messages = [message async for message in manager.jobs.WatchParentJob(request, timeout=20)]

        assert [event for message in messages for event in message.events.events] == singly
        assert len(messages) < len(singly)

    async def test_many_watchers_hear_every_event_once_and_in_order(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        parent = await manager.create()
        watches = [manager.watch(parent.id, 0) for _ in range(120)]
        heard = [asyncio.ensure_future(_all_of(watch)) for watch in watches]
        await run_all(worker)

        told = await asyncio.gather(*heard)

        every = sequences([message async for message in manager.watch(parent.id, 0)])
        assert every == list(range(1, len(every) + 1))
        assert all(sequences(messages) == every for messages in told)

    async def test_it_resumes_after_a_sequence(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        parent = await manager.create()
        await run_all(worker)
        every = sequences([message async for message in manager.watch(parent.id, 0)])

        assert sequences([message async for message in manager.watch(parent.id, 3)]) == every[3:]

    async def test_of_a_finished_job_it_tells_the_snapshot_and_ends(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        parent = await manager.create()
        await run_all(worker)

        [message] = [message async for message in manager.watch(parent.id)]

        assert message.snapshot.parent_job.state == job_pb2.PARENT_JOB_STATE_COMPLETED

    async def test_trimmed_events_are_answered_with_a_new_snapshot(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        parent = await manager.create()
        await run_all(worker)
        await manager.store.trim_events(keep=2, limit=1_000)

        messages = [message async for message in manager.watch(parent.id, 1)]

        assert messages[0].snapshot.resynced
        assert len(messages) == 1

    async def test_a_sequence_that_is_not_reached_is_refused(self, manager: RunningManager) -> None:
        await manager.worker()
        parent = await manager.create()

        refused = await refusal(manager.watch(parent.id, 1_000))

        assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
        assert list(refused.fields) == ["after_sequence"]
        assert list((await refusal(manager.watch(parent.id, -1))).fields) == ["after_sequence"]

    @pytest.mark.parametrize("wrong", [NOBODY, "x"])
    async def test_an_unknown_job_is_not_found(self, manager: RunningManager, wrong: str) -> None:
        assert (await refusal(manager.watch(wrong))).reason == "PARENT_JOB_NOT_FOUND"
        assert (await refusal(manager.watch(wrong, 0))).reason == "PARENT_JOB_NOT_FOUND"

    async def test_progress_is_told_between_events(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        parent = await manager.create(operations=("vacuum",))
        [lease] = await worker.acquire()
        await worker.beat(lease)
        call = manager.watch(parent.id)
        await call.read()

        await worker.beat(lease, progress=job_pb2.Progress(phase="copy", done=1, unit="bytes"))
        message = await call.read()
        call.cancel()

        assert (message.progress.child_job_id, message.progress.operation) == (lease.child_job_id, "vacuum")
        assert message.progress.target == "app"
        assert message.progress.progress.phase == "copy"

    async def test_progress_of_a_child_comes_once_a_second(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        parent = await manager.create(operations=("vacuum",))
        [lease] = await worker.acquire()
        await worker.beat(lease)
        call = manager.watch(parent.id)
        await call.read()
        loop = asyncio.get_running_loop()

        await worker.beat(lease, progress=job_pb2.Progress(phase="copy", done=1))
        assert (await call.read()).progress.progress.done == 1
        begin = loop.time()
        for done in range(2, 20):
            await worker.beat(lease, progress=job_pb2.Progress(phase="copy", done=done))
        last = await call.read()
        call.cancel()

        assert last.progress.progress.done == 19
        assert loop.time() - begin > 0.8

    async def test_a_reader_that_does_not_read_holds_up_nobody(self, manager: RunningManager) -> None:
        worker = await manager.worker(*(f"t{number}" for number in range(300)), slots=100)
        parent = await manager.create(*(f"t{number}" for number in range(300)))
        slow, fast = manager.watch(parent.id, 0), manager.watch(parent.id, 0)
        await slow.read()
        while leases := await worker.acquire(most=100):
            await worker.complete(*leases)

        told = sequences([message async for message in fast])

        assert told == list(range(1, len(told) + 1))
        rest = sequences([message async for message in _rest(slow)])
        assert rest == told[1:]

    async def test_it_learns_of_a_cancel_at_once(self, manager: RunningManager) -> None:
        await manager.worker()
        parent = await manager.create()
        call = manager.watch(parent.id)
        await call.read()

        begin = asyncio.get_running_loop().time()
        await manager.cancel(parent.id)
        messages = [message async for message in _rest(call)]

        assert messages[-1].event.parent_job.state == job_pb2.PARENT_JOB_STATE_CANCELLED
        assert asyncio.get_running_loop().time() - begin < 0.5

    async def test_a_shutdown_ends_it_so_that_the_client_resumes_elsewhere(self, tmp_path: Path) -> None:
        async with running(settings_on(tmp_path)) as manager:
            await manager.worker()
            parent = await manager.create()
            call = manager.watch(parent.id)
            await call.read()

            ending = asyncio.create_task(refusal(_rest(call)))
            await asyncio.sleep(0)
            await manager.stop()
            refused = await ending

        assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
        assert refused.retry


async def _rest(call: Any) -> Any:
    while (message := await call.read()) is not grpc.aio.EOF:
        yield message
    if await call.code() is not grpc.StatusCode.OK:
        await call


def lines(*texts: str) -> list[job_pb2.LogEntry]:
    return [job_pb2.LogEntry(level="info", message=text) for text in texts]


async def append(worker: Worker, lease: lease_service_pb2.Lease, offset: int, *texts: str) -> Any:
    return await worker.manager.leases.AppendLogs(
        lease_service_pb2.AppendLogsRequest(
            session_id=worker.session_id,
            child_job_id=lease.child_job_id,
            lease_id=lease.lease_id,
            attempt=lease.attempt,
            offset=offset,
            entries=lines(*texts),
        )
    )


def read(manager: RunningManager, child_job_id: str, **fields: Any) -> Any:
    request = job_service_pb2.ReadLogsRequest(child_job_id=child_job_id, **fields)
    return manager.jobs.ReadLogs(request, timeout=10)


async def said(call: Any) -> list[str]:
    return [entry.message async for page in call for entry in page.entries]


class TestReadLogs:
    async def test_it_reads_from_an_offset(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        await manager.create(operations=("vacuum",))
        [lease] = await worker.acquire()
        await append(worker, lease, 0, "a", "b", "c")

        assert await said(read(manager, lease.child_job_id)) == ["a", "b", "c"]
        assert await said(read(manager, lease.child_job_id, attempt=1, offset=2)) == ["c"]

    async def test_it_follows_until_the_attempt_ends(self, manager: RunningManager) -> None:
        worker = await manager.worker()
        await manager.create(operations=("vacuum",))
        [lease] = await worker.acquire()
        await append(worker, lease, 0, "a")
        following = asyncio.create_task(said(read(manager, lease.child_job_id, follow=True)))
        await append(worker, lease, 1, "b")
        await asyncio.sleep(0.05)
        assert not following.done()

        begin = asyncio.get_running_loop().time()
        await worker.report(result(lease))

        assert await following == ["a", "b"]
        assert asyncio.get_running_loop().time() - begin < 0.5

    async def test_following_a_child_that_ends_unbegun_ends(self, manager: RunningManager) -> None:
        parent = await manager.create("later", operations=("vacuum",), allow_unknown_targets=True)
        [child] = await manager.children(parent.id)
        following = asyncio.create_task(said(read(manager, child.id, follow=True)))
        await asyncio.sleep(0.05)

        await manager.cancel(parent.id)

        assert await following == []

    @pytest.mark.parametrize("wrong", [NOBODY, "x"])
    async def test_an_unknown_child_is_not_found(self, manager: RunningManager, wrong: str) -> None:
        assert (await refusal(read(manager, wrong))).reason == "CHILD_JOB_NOT_FOUND"

    @pytest.mark.parametrize("field", ["attempt", "offset"])
    async def test_what_is_negative_is_refused(self, manager: RunningManager, field: str) -> None:
        assert list((await refusal(read(manager, NOBODY, **{field: -1}))).fields) == [field]
