"""What a schema needs and the server has no more: it is told as that, and never as gone or damaged."""

import shutil
from pathlib import Path

import psycopg
import pytest

from tests.integration.operations.postgres_ground import change, file_of, run, value
from tests.postgres import PostgresServer
from worker_service.domain.outcome import FailureCategory, Outcome, Result, Verdict

ANALYZES = "SELECT analyze_count FROM pg_stat_all_tables WHERE relname = %s"
NEEDS = ("analyze", "reindex")


@pytest.fixture
def url(postgres_url: str) -> str:
    """Lend a database with a table ``t`` and one without troubles."""
    change(
        postgres_url,
        "CREATE TABLE t (a int, b text)",
        "INSERT INTO t SELECT i, 'row ' || i FROM generate_series(1, 100) AS i",
        "CREATE TABLE sound (a int PRIMARY KEY)",
    )
    return postgres_url


def assert_failed(result: Result, reason: str, told: str) -> None:
    assert result.outcome is Outcome.FAILED
    assert result.failure is not None
    assert (result.failure.reason, result.failure.category) == (reason, FailureCategory.SCHEMA)
    assert not result.failure.retryable
    assert told in result.reason


def assert_untouched(url: str, index: str, file: int) -> None:
    assert file_of(url, index) == file
    assert value(url, ANALYZES, "t") == 0


class TestWhatAFunctionReads:
    """An index's function that misses something reports what a missing table would report of itself."""

    @pytest.fixture
    def broken(self, url: str) -> str:
        change(
            url,
            "CREATE SCHEMA library",
            "CREATE TABLE library.shelf (a int)",
            "CREATE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS "
            "'BEGIN RETURN $1 + (SELECT count(*) FROM library.shelf); END'",
            "CREATE INDEX tf ON t (f(a))",
            "DROP TABLE library.shelf",
        )
        return url

    @pytest.mark.parametrize("operation", NEEDS)
    def test_a_missing_table_is_not_taken_for_the_one_that_is_maintained(
        self, broken: str, operation: str
    ) -> None:
        before = file_of(broken, "tf")

        result = run(broken, operation, "public.t")

        assert_failed(result, "UNDEFINED_OBJECT", 'relation "library.shelf" does not exist')
        assert_untouched(broken, "tf", before)

    def test_a_missing_schema_is_not_either(self, broken: str) -> None:
        change(
            broken,
            "CREATE FUNCTION library.g(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1'",
            "CREATE OR REPLACE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS "
            "'BEGIN RETURN library.g($1); END'",
            "DROP SCHEMA library CASCADE",
        )

        result = run(broken, "vacuum", "public.t", full=True)

        assert_failed(result, "UNDEFINED_OBJECT", 'schema "library" does not exist')

    def test_of_a_whole_database_the_table_is_named(self, broken: str) -> None:
        result = run(broken, "analyze")

        assert result.verdict is Verdict.PARTIALLY_EFFECTIVE
        assert "not done: public.t: The schema needs something that is missing here" in result.reason
        assert (value(broken, ANALYZES, "t"), value(broken, ANALYZES, "pg_class")) == (0, 1)


class TestLibrary:
    @pytest.mark.parametrize("operation", NEEDS)
    def test_one_that_is_not_there_is_no_damage(self, url: str, postgres: PostgresServer, operation: str) -> None:
        library = postgres.folder / "grams.so"
        shutil.copy(
            Path(value(url, "SELECT setting FROM pg_config WHERE name = 'PKGLIBDIR'")) / "pg_trgm.so", library
        )
        library.chmod(0o755)
        change(
            url,
            f"CREATE FUNCTION grams(text) RETURNS text[] AS '{library}', 'show_trgm' LANGUAGE C IMMUTABLE STRICT",
            "CREATE INDEX tg ON t (grams(b))",
        )
        library.unlink()
        before = file_of(url, "tg")

        result = run(url, operation, "public.t")

        assert_failed(result, "MISSING_LIBRARY", "grams.so")
        assert_untouched(url, "tg", before)


class TestCollation:
    @pytest.mark.parametrize("operation", NEEDS)
    def test_one_whose_locale_is_gone_is_told(self, url: str, operation: str) -> None:
        change(
            url,
            "CREATE COLLATION theirs (provider = libc, locale = 'C.UTF-8')",
            "ALTER TABLE t ALTER b TYPE text COLLATE theirs",
            "CREATE INDEX tb ON t (b)",
            "UPDATE pg_collation SET collcollate = 'nowhere.UTF-8', collctype = 'nowhere.UTF-8' "
            "WHERE collname = 'theirs'",
        )
        before = file_of(url, "tb")

        result = run(url, operation, "public.t")

        assert_failed(result, "MISSING_COLLATION", 'could not create locale "nowhere.UTF-8"')
        assert_untouched(url, "tb", before)

    def test_one_of_another_version_is_rebuilt(self, url: str) -> None:
        change(
            url,
            "CREATE COLLATION theirs (provider = icu, locale = 'de')",
            "ALTER TABLE t ALTER b TYPE text COLLATE theirs",
            "CREATE INDEX tb ON t (b)",
            "UPDATE pg_collation SET collversion = '1' WHERE collname = 'theirs'",
        )
        before = file_of(url, "tb")

        result = run(url, "reindex", "public.tb")

        assert result.verdict is Verdict.EFFECTIVE
        assert file_of(url, "tb") != before


class TestEncoding:
    @pytest.mark.parametrize("operation", ["vacuum", *NEEDS])
    def test_names_that_are_none_in_utf_8_are_told(self, postgres: PostgresServer, operation: str) -> None:
        with psycopg.connect(postgres.url(), autocommit=True) as connection:
            connection.execute(
                "CREATE DATABASE bytes ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
            )
        url = postgres.url("bytes")
        try:
            with psycopg.connect(url, autocommit=True, client_encoding="SQL_ASCII") as connection:
                connection.execute(b'CREATE TABLE "caf\xe9" (a int PRIMARY KEY)')

            result = run(url, operation)
        finally:
            postgres.drop_database(url)

        assert_failed(result, "ENCODING", "rename what has it")

    def test_another_encoding_is_as_good(self, postgres: PostgresServer) -> None:
        with psycopg.connect(postgres.url(), autocommit=True) as connection:
            connection.execute(
                "CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
            )
        url = postgres.url("latin")
        try:
            change(f"{url}?client_encoding=utf8", 'CREATE TABLE "café" (a int PRIMARY KEY)')
            before = file_of(f"{url}?client_encoding=utf8", '"café_pkey"')

            result = run(f"{url}?client_encoding=latin1", "reindex", 'public."café"')

            assert result.verdict is Verdict.EFFECTIVE
            assert file_of(f"{url}?client_encoding=utf8", '"café_pkey"') != before
        finally:
            postgres.drop_database(url)
