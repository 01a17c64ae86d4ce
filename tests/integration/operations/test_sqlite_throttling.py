"""What an owner's query says of a file."""

from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.integration.operations.doubles import run
from worker_service.domain.errors import TargetUnavailableError
from worker_service.domain.outcome import Outcome
from worker_service.domain.target import Target
from worker_service.domain.throttle import Throttle
from worker_service.operations.sqlite import SqliteEngine

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    path = tmp_path / "shop.db"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE cart (open INTEGER); INSERT INTO cart VALUES (1), (1)")
    connection.close()
    return path


def held_back(path: Path, *, seconds: float = 2.0, **throttle: Any) -> str:
    target = Target(name="app", url=str(path), engine="sqlite", throttle=Throttle(**throttle))
    return SqliteEngine().held_back(target, seconds=seconds)


def test_the_answer_counts_either_way_round(shop: Path) -> None:
    assert held_back(shop, while_sql="SELECT sum(open) > 1 FROM cart") == "while_sql is true"
    assert held_back(shop, while_sql="SELECT sum(open) > 2 FROM cart") == ""
    assert held_back(shop, unless_sql="SELECT sum(open) = 0 FROM cart") == "unless_sql is not true"


def test_it_leaves_no_file_behind(shop: Path) -> None:
    connection = apsw.Connection(str(shop))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()

    held_back(shop, while_sql="SELECT 0")

    assert [path.name for path in shop.parent.iterdir()] == ["shop.db"]


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("SELECT 1 FROM nowhere", "no such table: nowhere"),
        (ENDLESS, "it took longer than 0.1 s"),
        ("SELECT 0; DROP TABLE cart", "readonly|read-only|not authorized"),
        ("WITH a AS (SELECT 1) DELETE FROM cart", "readonly|read-only"),
    ],
)
def test_one_that_fails_holds_back_and_changes_nothing(shop: Path, query: str, error: str) -> None:
    with pytest.raises(TargetUnavailableError, match=error):
        held_back(shop, seconds=0.1, while_sql=query)

    assert held_back(shop, while_sql="SELECT count(*) = 2 FROM cart") == "while_sql is true"


def test_a_locked_file_holds_back(shop: Path) -> None:
    connection = apsw.Connection(str(shop))
    connection.execute("BEGIN EXCLUSIVE")

    with pytest.raises(TargetUnavailableError, match="locked"):
        held_back(shop, seconds=0.05, while_sql="SELECT 0")

    connection.close()


def test_a_file_that_is_gone_holds_back(shop: Path) -> None:
    shop.unlink()

    with pytest.raises(TargetUnavailableError, match="unable to open"):
        held_back(shop, while_sql="SELECT 0")


def test_an_operation_is_not_in_the_way_of_the_next_look(shop: Path) -> None:
    assert run(shop, "vacuum").outcome is Outcome.COMPLETED
    assert held_back(shop, while_sql="SELECT 0") == ""
