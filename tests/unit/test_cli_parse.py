"""How the texts of options are read."""

from datetime import UTC, datetime, timedelta

import pytest
import typer

from manager_service.client import parse
from manager_service.client.thresholds import Threshold


class TestSpan:
    @pytest.mark.parametrize(
        ("text", "seconds"),
        [("30s", 30), ("5m", 300), ("2h", 7_200), ("1h30m", 5_400), ("1.5s", 1.5), ("1ms", 0.001)],
    )
    def test_it_is_read(self, text: str, seconds: float) -> None:
        assert parse.span(text) == timedelta(seconds=seconds)

    @pytest.mark.parametrize("text", ["", "30", "s", "5 m", "-3s", "1h 30m", "0s", "999999999999d", "3sx"])
    def test_others_are_refused(self, text: str) -> None:
        with pytest.raises(typer.BadParameter):
            parse.span(text)


class TestDeadline:
    def test_it_is_read_from_now(self) -> None:
        now = datetime(2026, 1, 31, tzinfo=UTC)

        assert parse.deadline("+2h", now) == now + timedelta(hours=2)
        assert parse.deadline("+1d") > datetime.now(UTC)

    def test_a_time_keeps_its_zone_and_without_one_is_local(self) -> None:
        local = datetime(2030, 1, 31, 4).astimezone()

        assert parse.deadline("2030-01-31T04:00+01:00") == datetime(2030, 1, 31, 3, tzinfo=UTC)
        assert parse.deadline("2030-01-31T04:00") == local

    def test_others_are_refused(self) -> None:
        with pytest.raises(typer.BadParameter):
            parse.deadline("tomorrow")


class TestPairs:
    def test_they_are_read(self) -> None:
        assert parse.pairs(["a=1", "b=x=y", "c="]) == {"a": "1", "b": "x=y", "c": ""}
        assert parse.pairs(None) == {}

    @pytest.mark.parametrize("texts", [["a"], ["=1"], ["a=1", "a=2"]])
    def test_others_are_refused(self, texts: list[str]) -> None:
        with pytest.raises(typer.BadParameter):
            parse.pairs(texts)


class TestOperation:
    def test_it_is_read(self) -> None:
        assert parse.operation("vacuum") == ("vacuum", {})
        assert parse.operation("analyze:limit=4,full=true") == ("analyze", {"limit": "4", "full": "true"})

    @pytest.mark.parametrize("text", ["", ":a=1", "vacuum:", "vacuum:limit"])
    def test_others_are_refused(self, text: str) -> None:
        with pytest.raises(typer.BadParameter):
            parse.operation(text)


class TestThreshold:
    @pytest.mark.parametrize(
        ("text", "read"),
        [
            ("rows > 1", Threshold(condition="rows > 1")),
            ("vacuum: rows > 1", Threshold(condition="rows > 1", operation="vacuum")),
            ("@app:rows", Threshold(condition="rows", target="app")),
            ("/a:b*: rows", Threshold(condition="rows", object="a:b*")),
            (
                "vacuum@app/public.*: x",
                Threshold(condition="x", operation="vacuum", target="app", object="public.*"),
            ),
            ("vacuum/a/b: x", Threshold(condition="x", operation="vacuum", object="a/b")),
        ],
    )
    def test_it_is_read(self, text: str, read: Threshold) -> None:
        assert parse.threshold(text) == read

    @pytest.mark.parametrize("text", ["", " ", ": rows", "vacuum:", "@: rows", "@/: rows", "vacuum@: rows"])
    def test_others_are_refused(self, text: str) -> None:
        with pytest.raises(typer.BadParameter, match="is no threshold"):
            parse.threshold(text)
