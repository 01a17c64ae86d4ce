"""What an owner may throttle: how it is written, what is refused, and what an answer means."""

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.worker_doubles.fake_engine import FakeEngine, ThrottlingEngine
from worker_service import config
from worker_service.domain.errors import ConfigurationError, InvalidTargetError
from worker_service.domain.ports import Engine
from worker_service.domain.throttle import Throttle
from worker_service.operations.postgresql import PostgresqlEngine
from worker_service.targets import TargetOrder, resolve_targets

GUIDE = Path(__file__).parents[2] / "docs" / "throttling.md"


class Engines:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def by_name(self, name: str) -> Engine:
        return self.engine

    def for_url(self, url: str) -> Engine:
        return self.engine


def read(tmp_path: Path, text: str) -> Throttle | None:
    path = tmp_path / "w.toml"
    path.write_text(f'[[targets]]\nname = "orders"\nurl = "a.db"\n{text}\n')
    [order] = config.file_targets(config.read_file(path))
    return order.throttle


class TestTheTable:
    def test_all_of_it(self, tmp_path: Path) -> None:
        text = (
            '[targets.throttle]\nmax_replication_lag = "30 s"\nmax_replication_bytes = 1000\n'
            f'max-active-sessions = 0\nwhile_sql = " SELECT 1;"\npause_file = "{tmp_path}/pause"'
        )

        assert read(tmp_path, text) == Throttle(
            max_replication_lag=timedelta(seconds=30),
            max_replication_bytes=1000,
            max_active_sessions=0,
            while_sql="SELECT 1",
            pause_file=tmp_path / "pause",
        )

    @pytest.mark.parametrize(
        ("text", "seconds"),
        [('"500 ms"', 0.5), ('"1.5s"', 1.5), ('"5 min"', 300), ('"1 h"', 3600), ("30", 30), ("0.25", 0.25)],
    )
    def test_a_span_is_written_with_its_unit_or_in_seconds(
        self, tmp_path: Path, text: str, seconds: float
    ) -> None:
        throttle = read(tmp_path, f"throttle = {{ max_replication_lag = {text} }}")

        assert throttle == Throttle(max_replication_lag=timedelta(seconds=seconds))

    def test_the_guides_example_is_taken(self, tmp_path: Path) -> None:
        [example] = re.findall(r"```toml\n(.*?)```", GUIDE.read_text(), re.DOTALL)
        (tmp_path / "w.toml").write_text(example)

        [order] = config.file_targets(config.read_file(tmp_path / "w.toml"))

        assert order.throttle is not None
        assert order.throttle.asks == PostgresqlEngine.throttles - {"unless_sql"}

    def test_a_target_without_one_is_never_held_back(self, tmp_path: Path) -> None:
        assert read(tmp_path, "") is None

    @pytest.mark.parametrize(
        ("setting", "advice"),
        [
            ('max_replication_lag = "soon"', "has to be a span of at most a week"),
            ('max_replication_lag = "9999 h"', "has to be a span of at most a week"),
            ("max_replication_lag = true", "has to be a span of at most a week"),
            ("max_replication_lag = nan", "has to be a span of at most a week"),
            ("max_replication_bytes = -1", "has to be a whole number from 0"),
            ("max_active_sessions = 2.5", "has to be a whole number from 0"),
            ("max_active_sessions = true", "has to be a whole number from 0"),
            ('while_sql = "carts > 10"', "has to be a query of one row and column"),
            ("unless_sql = 1", "has to be a query of one row and column"),
            ('while_sql = "SELECT 1", unless_sql = "SELECT 0"', "put both into one query"),
            ('pause_file = "pause"', "has to be an absolute path"),
            ("pause_file = 1", "has to be an absolute path"),
            ('pause_file = "/nowhere/at/all/pause"', "make /nowhere/at/all first"),
            ("max_active_session = 1", "did you mean 'max_active_sessions'"),
            ("", "is a table such as"),
        ],
    )
    def test_what_makes_no_sense_is_refused_with_the_target_and_what_to_write(
        self, tmp_path: Path, setting: str, advice: str
    ) -> None:
        with pytest.raises(ConfigurationError, match=advice) as refused:
            read(tmp_path, f"throttle = {{ {setting} }}")

        assert "the target 'orders'" in str(refused.value)

    def test_one_that_is_no_table_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="The throttle of a target without a name: it is a table"):
            config.file_targets({"targets": [{"url": "a.db", "throttle": 3}]})


class TestTheEngine:
    order = TargetOrder(url="fake://a", name="orders", throttle=Throttle(max_active_sessions=1))

    def test_one_that_cannot_tell_is_refused(self) -> None:
        with pytest.raises(
            InvalidTargetError,
            match=r"target 'orders' has max_active_sessions, which fake cannot tell: .*It knows pause_file\.",
        ):
            resolve_targets([self.order], Engines(FakeEngine()))

    def test_of_one_that_can_tell_some_the_others_are_refused(self) -> None:
        order = replace(self.order, throttle=Throttle(max_replication_bytes=1))

        with pytest.raises(InvalidTargetError, match=r"It knows max_active_sessions, pause_file, while_sql\."):
            resolve_targets([order], Engines(ThrottlingEngine()))

    def test_one_that_can_tell_is_served(self) -> None:
        [served] = resolve_targets([self.order], Engines(ThrottlingEngine()))

        assert served.target.throttle == self.order.throttle

    def test_every_engine_knows_the_file(self) -> None:
        order = replace(self.order, throttle=Throttle(pause_file=Path("/tmp/pause")))

        assert resolve_targets([order], Engines(FakeEngine()))


class TestAnAnswer:
    @pytest.mark.parametrize(
        ("rows", "reason"),
        [
            ([(True,)], "while_sql is true"),
            ([(1,)], "while_sql is true"),
            ([(False,)], ""),
            ([(0.0,)], ""),
            ([(None,)], "while_sql answers neither true nor false"),
            ([("f",)], "while_sql answers neither true nor false"),
            ([], "while_sql has to answer one row of one column"),
            ([(True,), (True,)], "while_sql has to answer one row of one column"),
            ([(True, 1)], "while_sql has to answer one row of one column"),
        ],
    )
    def test_only_a_clear_no_lets_go(self, rows: list[tuple[Any, ...]], reason: str) -> None:
        assert Throttle(while_sql="SELECT 1").by_answer(rows) == reason

    @pytest.mark.parametrize(
        ("rows", "reason"),
        [
            ([(True,)], ""),
            ([(0,)], "unless_sql is not true"),
            ([(None,)], "unless_sql answers neither true nor false"),
        ],
    )
    def test_the_other_way_round(self, rows: list[tuple[Any, ...]], reason: str) -> None:
        assert Throttle(unless_sql="SELECT 1").by_answer(rows) == reason

    def test_what_is_not_asked_for_holds_nothing_back(self) -> None:
        throttle = Throttle()

        told = (throttle.by_lag(9e9, "it"), throttle.by_bytes(9e9, "it"), throttle.by_sessions(9))
        assert told == ("", "", "")
