from collections.abc import Iterator
from operator import itemgetter

import psycopg
import pytest

from manager_service.store import postgresql_pipeline
from manager_service.store.offers import KeptOffers
from manager_service.store.postgresql import _without_nul
from manager_service.store.postgresql_door import Door, parse
from manager_service.store.postgresql_pipeline import Pipeline

FIRST = itemgetter(0)


@pytest.fixture
def pipeline(postgres_url: str) -> Iterator[Pipeline]:
    opened = Pipeline(Door(parse(postgres_url)).open(), prepares=True)
    yield opened
    opened.close()


class TestPipeline:
    def test_one_that_failed_is_told_at_once_also_where_something_was_sent_after_it(
        self, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(postgresql_pipeline, "_PATIENCE", 3.0)
        read, failing = pipeline.ask("SELECT 1"), pipeline.ask("SELECT 1 / 0")
        assert read.rows(FIRST) == [1]
        pipeline.post("SELECT 2")

        with pytest.raises(psycopg.errors.DivisionByZero):
            failing.rows(FIRST)

        assert pipeline.ask("SELECT 3").rows(FIRST) == [3]

    def test_a_server_that_does_not_answer_is_given_up(
        self, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(postgresql_pipeline, "_PATIENCE", 0.2)

        with pytest.raises(psycopg.OperationalError, match="has not answered for"):
            pipeline.ask("SELECT pg_sleep(5)").rows(FIRST)

        assert pipeline.closed

    def test_texts_are_sent_as_they_are_whatever_the_surroundings_say(
        self, postgres_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
        pipeline = Pipeline(Door(parse(postgres_url)).open(), prepares=True)

        assert pipeline.ask("SELECT length(CAST($1 AS text))", ["ü"]).rows(FIRST) == [1]
        pipeline.close()


@pytest.mark.parametrize(
    ("written", "kept"),
    [(r'"a\u0000b"', r'"a\ufffdb"'), (r'"\\u0000"', r'"\\u0000"'), (r'"\\\u0000"', r'"\\\ufffd"')],
)
def test_a_nul_is_replaced_and_a_written_out_one_is_not(written: str, kept: str) -> None:
    assert _without_nul(written) == kept


def test_the_oldest_offers_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manager_service.store.offers._OFFERS_KEPT", 2)
    kept = KeptOffers()
    for target in "abc":
        kept.keep("o", target, {})

    assert [kept.get("o", target) for target in "abc"] == [None, {}, {}]
