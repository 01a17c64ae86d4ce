"""Following a job whose children wait: what is said of that, and when."""

import asyncio
from typing import Self

import pytest

from manager_service.client import ManagerClient, waits
from manager_service.client.follow import follow
from overhaul.v1 import job_pb2, job_service_pb2
from tests.contract.manager_harness import RunningManager, eventually, failed


class Lines:
    """A view that keeps what stays."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.live = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def say(self, text: str) -> None:
        self.lines.append(text)

    def parent(self, state: str, counts: job_pb2.ChildJobCounts) -> None:
        self.live = counts.leased + counts.running > 0

    def child(self, change: job_service_pb2.ChildJobChange) -> None:
        pass

    def progress(self, update: job_service_pb2.ProgressUpdate) -> None:
        pass


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "LOOK_EVERY", 0.01)


async def test_each_reason_is_told_once_and_none_while_something_runs(manager: RunningManager) -> None:
    worker, view = await manager.worker(), Lines()
    await worker.beat(held_back={"app": "31 active sessions, at most 20"})
    parent = await manager.create(operations=("vacuum",))

    async def says(count: int) -> bool:
        return len(view.lines) >= count

    async def runs() -> bool:
        return view.live

    async with ManagerClient(f"127.0.0.1:{manager.port}") as client:
        following = asyncio.ensure_future(follow(client, parent.id, view))
        await eventually(lambda: says(1))
        await worker.beat(held_back={"app": "35 active sessions, at most 20"})
        await asyncio.sleep(0.05)
        await worker.beat(held_back={"app": "the pause file pause is there"})
        await eventually(lambda: says(2))
        await worker.beat()
        [lease] = await worker.acquire()
        await eventually(runs)
        await asyncio.sleep(0.05)
        await worker.report(failed(lease))
        ended = await following

    assert ended.state == job_pb2.PARENT_JOB_STATE_FAILED
    assert view.lines == [
        "waiting: vacuum app: throttled: 31 active sessions, at most 20",
        "waiting: vacuum app: throttled: the pause file pause is there",
    ]
