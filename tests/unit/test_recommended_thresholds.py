"""The thresholds that the documentation recommends."""

import ast

import pytest

from manager_service.domain.conditions import condition
from tests.documented import named_measures, recommended


def test_each_engine_has_some() -> None:
    assert {name.partition(",")[0] for name in recommended()} == {"PostgreSQL", "MariaDB", "SQLite"}
    assert {
        "MariaDB, vacuum",
        "MariaDB, analyze",
        "SQLite, vacuum",
        "SQLite, analyze by table",
    } <= recommended().keys()


@pytest.mark.parametrize("name", recommended())
def test_it_is_a_condition_on_measures_that_are_documented(name: str) -> None:
    text = recommended()[name]
    names = {part.id for part in ast.walk(ast.parse(text)) if isinstance(part, ast.Name)}

    assert condition(text).holds({}) is None
    assert names
    assert names <= named_measures()
