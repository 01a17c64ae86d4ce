import threading

import pytest

from tests.lodgings import wait_until
from worker_service.control import LeaseControl
from worker_service.domain.errors import OperationCancelledError
from worker_service.domain.operation import Progress
from worker_service.domain.settlement import StopReason


class Sink:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def write(self, level: str, message: str) -> None:
        self.lines.append((level, message))


def control(*, fence: float = 10.0, now: float = 0.0) -> LeaseControl:
    return LeaseControl(fence=fence, clock=lambda: now, sink=Sink())


def waiting(one: LeaseControl) -> tuple[threading.Thread, list[str]]:
    ends: list[str] = []

    def run() -> None:
        try:
            one.checkpoint()
            ends.append("went on")
        except OperationCancelledError as error:
            ends.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    return thread, ends


class TestCheckpoint:
    def test_before_the_fence_it_passes(self) -> None:
        control().checkpoint()

    def test_past_the_fence_it_waits_until_the_lease_is_renewed(self) -> None:
        one = control(fence=5, now=5)
        thread, ends = waiting(one)
        thread.join(0.05)
        assert thread.is_alive()
        one.renew(6)
        thread.join(5)

        assert ends == ["went on"]

    @pytest.mark.parametrize("reason", list(StopReason))
    def test_a_stop_ends_the_wait(self, reason: StopReason) -> None:
        one = control(fence=5, now=5)
        thread, ends = waiting(one)
        one.stop(reason)
        thread.join(5)

        assert ends
        assert ends != ["went on"]

    def test_a_stop_is_seen_before_the_fence_too(self) -> None:
        one = control()
        one.stop(StopReason.CANCELLED)

        with pytest.raises(OperationCancelledError):
            one.checkpoint()


class TestStop:
    def test_the_first_reason_stays(self) -> None:
        one = control()

        assert one.stop(StopReason.TIMEOUT)
        assert not one.stop(StopReason.DRAIN)
        assert one.stop_reason is StopReason.TIMEOUT

    def test_a_lost_lease_outdoes_all(self) -> None:
        one = control()
        one.stop(StopReason.CANCELLED)
        one.stop(StopReason.LOST)

        assert one.stop_reason is StopReason.LOST

    def test_the_fence_never_moves_back(self) -> None:
        one = control(fence=9)
        one.renew(3)

        assert one.fence == 9


def test_the_latest_progress_is_kept() -> None:
    one = control()
    one.progress(Progress(phase="copy", done=1))
    one.progress(Progress(phase="copy", done=2))

    assert one.latest_progress == Progress(phase="copy", done=2)


class Gate:
    """Holds a target back until it is opened."""

    def __init__(self) -> None:
        self.reason = "busy"

    def __call__(self) -> str:
        return self.reason


class TestATargetThatIsHeldBack:
    def held(self, gate: Gate, fence: float = 10.0) -> tuple[LeaseControl, Sink]:
        sink = Sink()
        return LeaseControl(fence=fence, clock=lambda: 0.0, sink=sink, held_back=gate), sink

    def test_it_waits_telling_for_what_and_goes_on_where_it_was(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("worker_service.control._LOOK_AGAIN", 0.002)
        gate = Gate()
        one, sink = self.held(gate)
        half = Progress(phase="vacuum", done=1, total=2, unit="tables")
        one.progress(half)
        thread, ends = waiting(one)
        told = Progress(phase="held back: busy", done=1, total=2, unit="tables")
        wait_until(lambda: one.latest_progress == told, "it does not tell that it waits")

        gate.reason = ""
        thread.join(5)

        assert ends == ["went on"]
        assert one.latest_progress == half
        assert sink.lines == [("info", "waits: busy"), ("info", "goes on after 0 s")]

    def test_one_that_had_not_told_anything_says_that_it_goes_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("worker_service.control._LOOK_AGAIN", 0.002)
        gate = Gate()
        one, _ = self.held(gate)
        thread, _ = waiting(one)
        wait_until(lambda: one.latest_progress is not None, "it does not tell that it waits")

        gate.reason = ""
        thread.join(5)

        assert one.latest_progress == Progress(phase="goes on")

    @pytest.mark.parametrize("reason", list(StopReason))
    def test_a_stop_ends_the_wait_at_once(self, reason: StopReason, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("worker_service.control._LOOK_AGAIN", 60.0)
        one, sink = self.held(Gate())
        thread, ends = waiting(one)
        wait_until(lambda: one.latest_progress is not None, "it does not wait")

        one.stop(reason)
        thread.join(5)

        assert ends
        assert ends != ["went on"]
        assert sink.lines == [("info", "waits: busy")]
