"""Watches and logs that go on by themselves, against a real server that breaks them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

import grpc
import pytest

from manager_service.client import ClientError, ManagerClient
from manager_service.client.errors import ManagerUnreachableError
from overhaul.v1 import job_pb2, job_service_pb2
from tests.client_doubles import wire
from tests.client_doubles.fake_manager import FakeManager, Hang, Refusal

SNAPSHOT = wire.snapshot(wire.parent_job(sequence=3))
FINAL = wire.parent_event(6, wire.completed_parent_job())
UNAVAILABLE = Refusal(code=grpc.StatusCode.UNAVAILABLE, message="shutting down", reason="SHUTTING_DOWN")
Update = job_service_pb2.WatchParentJobResponse


async def sequences(updates: AsyncIterator[Update], on_event: Callable[[int], None] = lambda _: None) -> list[int]:
    seen = []
    async for update in updates:
        if update.WhichOneof("update") == "event":
            seen.append(update.event.sequence)
            on_event(update.event.sequence)
    return seen


class TestWatch:
    async def test_it_ends_after_the_final_state(self) -> None:
        script = [SNAPSHOT, wire.child_event(4), wire.progress(phase="copy"), wire.completed_child_event(5), FINAL]
        with FakeManager().answers("WatchParentJob", [*script]) as manager:
            async with ManagerClient(manager.address) as client:
                updates = [update async for update in client.watch_parent_job(wire.PARENT_ID)]

        assert updates == script
        assert not manager.requests("WatchParentJob")[0].HasField("after_sequence")

    @pytest.mark.parametrize(
        "code",
        [
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.CANCELLED,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            grpc.StatusCode.INTERNAL,
        ],
    )
    async def test_a_broken_stream_is_resumed_after_the_last_sequence(self, code: grpc.StatusCode) -> None:
        manager = FakeManager().answers(
            "WatchParentJob",
            [SNAPSHOT, wire.child_event(4), Refusal(code=code)],
            Refusal(code=code),
            # Sends one again, as a manager must not.
            [wire.child_event(4), wire.completed_child_event(5), FINAL],
        )
        with manager:
            async with ManagerClient(manager.address) as client:
                seen = await sequences(client.watch_parent_job(wire.PARENT_ID))

        asked = [request.after_sequence for request in manager.requests("WatchParentJob")]
        assert seen == [4, 5, 6]
        assert asked == [0, 4, 4]

    async def test_several_events_in_one_message_are_told_one_by_one(self) -> None:
        events = [wire.child_event(4), wire.completed_child_event(5), FINAL]
        first, all_of_them = (
            Update(events=job_service_pb2.JobEvents(events=[one.event for one in some]))
            for some in (events[:1], events)
        )
        # After the break the first one is sent again, as a manager must not.
        manager = FakeManager().answers("WatchParentJob", [SNAPSHOT, first, UNAVAILABLE], [all_of_them])
        with manager:
            async with ManagerClient(manager.address) as client:
                updates = [update async for update in client.watch_parent_job(wire.PARENT_ID)]

        assert updates == [SNAPSHOT, *events]
        assert all(request.several_events for request in manager.requests("WatchParentJob"))

    async def test_a_manager_that_restarts_on_its_port_is_found_again(self) -> None:
        first = FakeManager().answers("WatchParentJob", [SNAPSHOT, wire.child_event(4), Hang()])
        second: list[FakeManager] = []

        def restart(sequence: int) -> None:
            if sequence == 4:
                first.stop()
                again = FakeManager(first.port)
                second.append(again.answers("WatchParentJob", [wire.completed_child_event(5), FINAL]))

        async with ManagerClient(first.address) as client:
            seen = await sequences(client.watch_parent_job(wire.PARENT_ID), restart)
        second[0].stop()

        assert seen == [4, 5, 6]
        assert second[0].requests("WatchParentJob")[0].after_sequence == 4

    async def test_a_resynced_snapshot_is_passed_on_and_resumed_from(self) -> None:
        resynced = wire.snapshot(wire.parent_job(sequence=90), resynced=True)
        manager = FakeManager().answers(
            "WatchParentJob",
            [resynced, UNAVAILABLE],
            [wire.child_event(91), wire.parent_event(92, wire.completed_parent_job())],
        )
        with manager:
            async with ManagerClient(manager.address) as client:
                updates = [update async for update in client.watch_parent_job(wire.PARENT_ID, after_sequence=7)]

        assert updates[0].snapshot.resynced
        assert [update.event.sequence for update in updates[1:]] == [91, 92]
        assert [request.after_sequence for request in manager.requests("WatchParentJob")] == [7, 90]

    async def test_it_gives_up_after_a_while_of_silence(self) -> None:
        with FakeManager().answers("WatchParentJob", [SNAPSHOT, UNAVAILABLE], UNAVAILABLE) as manager:
            async with ManagerClient(manager.address) as client:
                with pytest.raises(ManagerUnreachableError):
                    await sequences(client.watch_parent_job(wire.PARENT_ID, give_up_after=0.3))

        assert len(manager.requests("WatchParentJob")) > 2

    @pytest.mark.parametrize(
        "refusal",
        [
            Refusal(code=grpc.StatusCode.NOT_FOUND, reason="PARENT_JOB_NOT_FOUND"),
            Refusal(code=grpc.StatusCode.INTERNAL, reason="INTERNAL"),
        ],
    )
    async def test_a_refusal_ends_it_at_once(self, refusal: Refusal) -> None:
        with FakeManager().answers("WatchParentJob", refusal) as manager:
            async with ManagerClient(manager.address) as client:
                with pytest.raises(ClientError):
                    await sequences(client.watch_parent_job(wire.PARENT_ID))

        assert len(manager.requests("WatchParentJob")) == 1

    async def test_an_outage_is_told_once_while_it_lasts(self) -> None:
        troubles: list[ClientError] = []
        manager = FakeManager().answers(
            "WatchParentJob",
            [SNAPSHOT, UNAVAILABLE],
            UNAVAILABLE,
            [wire.child_event(4), UNAVAILABLE],
            [FINAL],
        )
        with manager:
            async with ManagerClient(manager.address) as client:
                await sequences(client.watch_parent_job(wire.PARENT_ID, on_trouble=troubles.append))

        assert [type(error) for error in troubles] == [ManagerUnreachableError, ManagerUnreachableError]

    async def test_leaving_it_cancels_the_call(self) -> None:
        with FakeManager().answers("WatchParentJob", [SNAPSHOT, Hang()]) as manager:
            async with ManagerClient(manager.address) as client:
                async with aclosing(client.watch_parent_job(wire.PARENT_ID)) as updates:
                    async for _ in updates:
                        break

                assert await asyncio.to_thread(manager.client_left)


def log(offset: int, *lines: str) -> job_service_pb2.ReadLogsResponse:
    entries = [job_pb2.LogEntry(time=wire.at(0), level="info", message=line) for line in lines]
    return job_service_pb2.ReadLogsResponse(attempt=2, offset=offset, entries=entries)


class TestLogs:
    async def test_a_broken_log_is_resumed_by_offset_on_the_same_attempt(self) -> None:
        manager = FakeManager().answers("ReadLogs", [log(0, "one", "two"), UNAVAILABLE], [log(2, "three")])
        with manager:
            async with ManagerClient(manager.address) as client:
                lines = [
                    entry.message
                    async for chunk in client.read_logs(wire.CHILD_ID, follow=True)
                    for entry in chunk.entries
                ]

        first, second = manager.requests("ReadLogs")
        assert lines == ["one", "two", "three"]
        assert (first.attempt, first.offset, first.follow) == (0, 0, True)
        assert (second.attempt, second.offset, second.follow) == (2, 2, True)

    async def test_a_child_that_is_not_there_is_told(self) -> None:
        refusal = Refusal(code=grpc.StatusCode.NOT_FOUND, reason="CHILD_JOB_NOT_FOUND")
        with FakeManager().answers("ReadLogs", refusal) as manager:
            async with ManagerClient(manager.address) as client:
                with pytest.raises(ClientError):
                    async for _ in client.read_logs(wire.CHILD_ID):
                        pass
