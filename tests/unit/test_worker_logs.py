from datetime import UTC, datetime

from worker_service import logs
from worker_service.domain.manager import LogAnswer
from worker_service.logs import LogStream

NOW = datetime(2026, 1, 31, tzinfo=UTC)


def stream() -> LogStream:
    return LogStream(child_job_id="c", lease_id="l", attempt=1, now=lambda: NOW)


def messages(one: LogStream) -> list[str]:
    batch = one.batch()
    return [line.message for line in batch.lines] if batch else []


def acknowledge(one: LogStream) -> None:
    batch = one.batch()
    assert batch is not None
    one.stored(batch, LogAnswer(next_offset=batch.offset + len(batch.lines)))


class TestWrite:
    def test_a_message_of_several_lines_is_several_entries(self) -> None:
        one = stream()
        one.write("info", "first\nsecond\n")

        assert messages(one) == ["first", "second"]

    def test_an_empty_message_is_an_empty_line(self) -> None:
        one = stream()
        one.write("debug", "")

        assert messages(one) == [""]

    def test_a_long_line_is_cut_between_characters(self) -> None:
        one = stream()
        one.write("info", "é" * 5_000)
        [message] = messages(one)

        assert len(message.encode()) <= logs.LINE_BYTES
        assert set(message) == {"é"}

    def test_an_unknown_level_is_info(self) -> None:
        one = stream()
        one.write("loud", "x")
        batch = one.batch()

        assert batch is not None
        assert batch.lines[0].level == "info"


class TestBatch:
    def test_a_repeat_is_the_same_until_it_was_stored(self) -> None:
        one = stream()
        one.write("info", "a")

        assert one.batch() == one.batch()

    def test_offsets_go_on_where_the_manager_says(self) -> None:
        one = stream()
        one.write("info", "a")
        acknowledge(one)
        one.write("info", "b")
        batch = one.batch()

        assert batch is not None
        assert (batch.offset, messages(one)) == (1, ["b"])

    def test_a_batch_is_bounded_in_lines_and_bytes(self) -> None:
        one = stream()
        for _ in range(1_500):
            one.write("info", "x")
        assert len(messages(one)) == logs.BATCH_LINES
        big = stream()
        for _ in range(300):
            big.write("info", "x" * logs.LINE_BYTES)

        assert sum(len(message) for message in messages(big)) <= logs.BATCH_BYTES

    def test_nothing_written_is_no_batch(self) -> None:
        assert stream().batch() is None


class TestDrop:
    def test_what_does_not_fit_is_counted_in_its_place(self) -> None:
        one = stream()
        for number in range(logs.BUFFERED_LINES + 7):
            one.write("info", str(number))
        acknowledge(one)
        one.write("info", "later")
        seen: list[str] = []
        while one.pending:
            seen += messages(one)
            acknowledge(one)

        assert seen[-1] == "later"
        assert seen[-2].startswith("7 lines dropped")

    def test_a_drop_at_the_end_is_told_too(self) -> None:
        one = stream()
        for number in range(logs.BUFFERED_LINES + 1):
            one.write("info", str(number))
        seen: list[str] = []
        while one.pending:
            seen += messages(one)
            acknowledge(one)

        assert len(seen) == logs.BUFFERED_LINES + 1
        assert seen[-1].startswith("1 lines dropped")


class TestEnd:
    def test_a_lost_lease_ends_the_log(self) -> None:
        one = stream()
        one.write("info", "a")
        batch = one.batch()
        assert batch is not None
        one.stored(batch, LogAnswer(next_offset=0, lost=True))
        one.write("info", "b")

        assert not one.pending

    def test_after_a_gap_it_goes_on_and_tells(self) -> None:
        one = stream()
        one.write("info", "a")
        acknowledge(one)
        one.write("info", "b")
        one.resume_at(0)
        batch = one.batch()

        assert batch is not None
        assert batch.offset == 0
        assert [line.message for line in batch.lines] == ["1 lines before this one were lost", "b"]
