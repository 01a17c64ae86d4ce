"""How long connections are kept, whatever they lead to."""

import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from worker_service.operations import kept


class Line:
    """A pipe that stands for a connection: what is written into it is news."""

    def __init__(self) -> None:
        self.reads, self.writes = os.pipe()
        self.closed_at: float | None = None

    def close(self) -> None:
        if self.closed_at is None:
            self.closed_at = time.monotonic()
            os.close(self.reads)
            os.close(self.writes)


class Lender(kept.Kept[str, Line]):
    def connect(self, place: str) -> Line:
        return Line()

    def key(self, place: str) -> str:
        return place

    def descriptor(self, connection: Line) -> int:
        return connection.reads if connection.closed_at is None else -1

    def is_clean(self, connection: Line) -> bool:
        return connection.closed_at is None


@pytest.fixture
def lender() -> Iterator[Lender]:
    made = Lender(idle_seconds=0.2)
    yield made
    made.close()


def until(found: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not found():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.005)


class TestKept:
    def test_one_goes_to_the_same_place_again_and_to_no_other(self, lender: Lender) -> None:
        lent = lender.lend("a")
        lender.take_back(lent)

        assert lender.lend("b").connection is not lent.connection
        assert lender.lend("a") is lent

    def test_none_waits_much_longer_than_it_should(self, lender: Lender) -> None:
        first, second = lender.lend("a"), lender.lend("a")
        lender.take_back(first)
        time.sleep(0.1)
        lender.take_back(second)
        since = time.monotonic()

        until(lambda: second.connection.closed_at)

        assert first.connection.closed_at is not None
        assert second.connection.closed_at is not None
        assert first.connection.closed_at < second.connection.closed_at
        assert 0.15 < second.connection.closed_at - since < 0.35, "a fixed beat would take up to twice as long"

    def test_one_with_news_is_ended(self, lender: Lender) -> None:
        lent = lender.lend("a")
        lender.take_back(lent)
        os.write(lent.connection.writes, b"x")

        assert lender.lend("a") is not lent
        assert lent.connection.closed_at is not None

    def test_one_that_has_ended_is_not_taken_back(self, lender: Lender) -> None:
        lent = lender.lend("a")
        lent.connection.close()

        assert not lender.take_back(lent)

    def test_an_old_one_is_ended(self, lender: Lender, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(kept, "_MOST_SECONDS", 0.0)
        lent = lender.lend("a")

        assert lender.take_back(lent)
        assert lent.connection.closed_at is not None

    def test_without_a_thread_to_look_after_it_none_is_kept(
        self, lender: Lender, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lent = lender.lend("a")

        def refuse(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            assert not lender.take_back(lent)
        assert lender.take_back(lent)
        assert lender.lend("a") is lent

    def test_those_that_wait_are_ended_when_their_next_look_finds_no_thread(
        self, lender: Lender, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, second = lender.lend("a"), lender.lend("a")
        lender.take_back(first)
        time.sleep(0.1)
        lender.take_back(second)

        def refuse(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)
        until(lambda: first.connection.closed_at and second.connection.closed_at)
