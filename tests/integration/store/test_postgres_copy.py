from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import BigInteger, Boolean, Column, MetaData, Table, Text

from manager_service.store.postgresql_copy import copying

_TABLE = Table(
    "copied",
    MetaData(),
    Column("place", BigInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("note", Text),
    Column("good", Boolean),
    Column("shared", Text),
)
# Above all what the format has a meaning for.
_TEXTS = st.text(
    st.one_of(st.sampled_from("\0\t\n\r\\N.tbx \x0b\x1f\x7f\u2028é😀"), st.characters(codec="utf-8")), max_size=12
)
_ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "place": st.integers(-(2**63), 2**63 - 1),
            "name": _TEXTS,
            "note": st.none() | _TEXTS,
            "good": st.sampled_from([True, False, None]),
        }
    ),
    min_size=1,
    max_size=8,
)


@pytest.fixture(scope="module")
def connection(postgres: Any) -> Iterator[psycopg.Connection[Any]]:
    url = postgres.create_database()
    with psycopg.connect(url) as opened:
        opened.execute(
            "CREATE TABLE copied (line serial, place bigint, name text, note text, good boolean, shared text)"
        )
        yield opened
        opened.rollback()
    postgres.drop_database(url)


class TestCopying:
    @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(rows=_ROWS, shared=st.none() | _TEXTS)
    def test_a_server_reads_what_was_written(
        self, connection: psycopg.Connection[Any], rows: list[dict[str, Any]], shared: str | None
    ) -> None:
        how = copying(_TABLE, tuple(rows[0]), ("shared",))
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM copied")
            with cursor.copy(how.sql.encode()) as copy:
                copy.write(how.text(rows, {"shared": shared}))
            read = cursor.execute("SELECT place, name, note, good, shared FROM copied ORDER BY line").fetchall()

        kept = [tuple(_kept(row[name]) for name in ("place", "name", "note", "good")) for row in rows]
        assert read == [(*row, _kept(shared)) for row in kept]


def _kept(value: Any) -> Any:
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value
