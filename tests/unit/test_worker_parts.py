import asyncio
import io
import os
from datetime import UTC, datetime

import pytest
import structlog

from tests.worker_doubles.fake_engine import FakeEngine
from worker_service.backoff import Backoff
from worker_service.catalogue import Served
from worker_service.control import LeaseControl
from worker_service.domain.errors import InvalidOperationError
from worker_service.domain.manager import WorkerDirective, WorkerState
from worker_service.domain.operation import WORKER_TYPE, Operation
from worker_service.domain.outcome import Outcome
from worker_service.domain.target import Target
from worker_service.execution import log
from worker_service.lifecycle import Lifecycle, Stage
from worker_service.log_setup import configure_logs
from worker_service.logs import LogStream
from worker_service.loops import Loop
from worker_service.maintenance import MaintenanceWorker
from worker_service.plan import WantedOperation, plan_target
from worker_service.polling import PollTurn
from worker_service.stdin import Lifeline

TARGET = Target(name="app", url="fake://app", engine="fake")


class TestBackoff:
    async def test_pauses_are_drawn_below_a_doubling_ceiling_with_a_cap(self) -> None:
        pauses: list[float] = []

        async def sleep(seconds: float) -> None:
            pauses.append(seconds)

        backoff = Backoff(base=1, cap=5, draw=lambda: 0.5, sleep=sleep)
        for _ in range(5):
            await backoff.pause()
        backoff.reset()
        await backoff.pause()

        assert pauses == [0.5, 1, 2, 2.5, 2.5, 0.5]


class TestLoop:
    async def test_a_body_that_fails_does_not_end_it(self) -> None:
        turns = 0
        enough = asyncio.Event()

        async def body() -> None:
            nonlocal turns
            turns += 1
            if turns == 3:
                enough.set()
                await asyncio.Event().wait()
            raise ValueError(turns)

        loop = Loop("test", body, backoff=Backoff(base=0))
        loop.start()
        loop.start()
        await enough.wait()
        await loop.stop()
        await loop.stop()

        assert turns == 3

    async def test_a_body_that_swallows_a_cancel_is_cancelled_again(self) -> None:
        swallowed = 0

        async def body() -> None:
            nonlocal swallowed
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
                if swallowed > 1:
                    raise

        loop = Loop("test", body)
        loop.start()
        await asyncio.sleep(0)
        await loop.stop()

        assert swallowed == 2


class TestPollTurn:
    async def test_there_is_one_poll_at_a_time_and_its_sequence_rises(self) -> None:
        turn = PollTurn()
        assert turn.try_take() == 1
        assert turn.try_take() is None
        waiting = asyncio.ensure_future(turn.take())
        await asyncio.sleep(0)
        assert not waiting.done()
        turn.give_back()

        assert await waiting == 2


class TestLifecycle:
    @pytest.fixture
    def lifecycle(self) -> Lifecycle:
        return Lifecycle(grace=10, clock=lambda: 100.0, on_change=lambda: None)

    def test_the_manager_may_pause_and_resume_it(self, lifecycle: Lifecycle) -> None:
        lifecycle.obey(WorkerDirective.DRAIN)
        assert (lifecycle.stage, lifecycle.state) == (Stage.PAUSED, WorkerState.DRAINING)
        lifecycle.obey(WorkerDirective.NONE)

        assert (lifecycle.stage, lifecycle.state) == (Stage.SERVING, WorkerState.READY)

    def test_the_way_to_the_end_has_no_return(self, lifecycle: Lifecycle) -> None:
        lifecycle.obey(WorkerDirective.TERMINATE)
        assert lifecycle.patience is None
        lifecycle.drain()
        assert lifecycle.patience == 10
        for directive in WorkerDirective:
            lifecycle.obey(directive)
        assert lifecycle.stage is Stage.DRAINING
        lifecycle.release()
        lifecycle.drain()

        assert lifecycle.patience == 0


class TestMaintenanceWorker:
    def worker(self, engine: FakeEngine) -> MaintenanceWorker:
        sink = LogStream(child_job_id="c", lease_id="l", attempt=1, now=lambda: datetime.now(UTC))
        control = LeaseControl(fence=1, clock=lambda: 0, sink=sink)
        return MaintenanceWorker(engine=engine, target=TARGET, control=control, log=log.bind())

    def test_it_has_the_seeds_interface(self) -> None:
        worker = self.worker(FakeEngine())
        worker.interrupt()
        worker.validate(Operation(name="noop", target="app"))

        assert worker.worker_type == WORKER_TYPE == "database_maintenance_operation"
        assert worker.execute(Operation(name="noop", target="app")).outcome is Outcome.COMPLETED
        with pytest.raises(InvalidOperationError):
            worker.validate(Operation(name="nonsense", target="app"))


class TestPlan:
    def test_it_tells_the_statements(self) -> None:
        plan = plan_target(
            Served(target=TARGET, engine=FakeEngine()),
            [WantedOperation(name="noop"), WantedOperation(name="block")],
        )

        assert [(one.operation, one.statements) for one in plan.operations] == [
            ("noop", ("NOOP",)),
            ("block", ("BLOCK",)),
        ]

    @pytest.mark.parametrize(("name", "hint"), [("nop", "did you mean 'noop'"), ("zzzz", "it knows noop")])
    def test_an_unknown_operation_gets_a_hint(self, name: str, hint: str) -> None:
        with pytest.raises(InvalidOperationError, match=hint):
            plan_target(Served(target=TARGET, engine=FakeEngine()), [WantedOperation(name=name)])


class TestLifeline:
    async def test_the_first_line_and_the_end_are_told(self) -> None:
        reader, writer = os.pipe()
        ended = asyncio.Event()
        lifeline = Lifeline(ended.set, reader)
        os.write(writer, b"127.0.0.1:")
        os.write(writer, b"7420\nmore\n")
        assert await lifeline.first_line() == "127.0.0.1:7420"
        assert not ended.is_set()
        os.close(writer)
        async with asyncio.timeout(5):
            await ended.wait()
        os.close(reader)

    async def test_an_end_without_a_line_is_no_address(self) -> None:
        reader, writer = os.pipe()
        lifeline = Lifeline(lambda: None, reader)
        os.close(writer)

        assert await lifeline.first_line() is None
        os.close(reader)


def test_logs_for_people_are_plain_text_without_secrets() -> None:
    before, out = structlog.get_config(), io.StringIO()
    try:
        configure_logs(form="console", level="info", redact=lambda text: text.replace("pw", "***"), stream=out)
        log.debug("unseen")
        log.info("seen", url="pw", number=3)
    finally:
        structlog.configure(**before)

    assert "unseen" not in out.getvalue()
    assert "url=***" in out.getvalue()
