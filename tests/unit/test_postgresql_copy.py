from typing import Any

import pytest
from sqlalchemy import Boolean, Column, Float, Integer, MetaData, Table, Text

from manager_service.store.postgresql_copy import copying

_TABLE = Table(
    "things",
    MetaData(),
    Column("name", Text, nullable=False),
    Column("note", Text),
    Column("number", Integer, nullable=False),
    Column("good", Boolean),
    Column("weight", Float),
)


def _text(*rows: dict[str, Any], **same: Any) -> bytes:
    return copying(_TABLE, tuple(rows[0]), tuple(same)).text(rows, same)


class TestCopying:
    def test_the_statement_names_the_columns_in_the_order_of_their_values(self) -> None:
        sql = copying(_TABLE, ("number", "note"), ("name",)).sql

        assert sql == 'COPY "things" ("name", "number", "note") FROM STDIN WITH (ENCODING \'UTF8\')'

    def test_a_row_is_a_line_of_values_between_tabs(self) -> None:
        assert _text({"name": "a", "number": 1}, {"name": "b", "number": -2}) == b"a\t1\nb\t-2\n"

    def test_what_all_rows_share_stands_in_each_of_them(self) -> None:
        assert _text({"number": 1}, {"number": 2}, name="a\tb", note=None) == b"a\\tb\t\\N\t1\na\\tb\t\\N\t2\n"

    def test_what_copy_would_take_for_its_own_is_escaped(self) -> None:
        assert _text({"name": "a\tb\nc\rd\\.e"}) == rb"a\tb\nc\rd\\.e" + b"\n"

    def test_one_text_that_is_escaped_leaves_its_neighbours_as_they_are(self) -> None:
        assert _text({"name": "a"}, {"name": "\\N"}, {"name": ""}) == b"a\n\\\\N\n\n"

    def test_a_nul_character_becomes_the_replacement_character(self) -> None:
        assert _text({"name": "a\0b"}) == "a\ufffdb\n".encode()

    def test_nothing_is_not_an_empty_text(self) -> None:
        assert _text({"note": None}, {"note": ""}, {"note": "x"}) == b"\\N\n\nx\n"

    def test_a_column_of_nothing_only(self) -> None:
        assert _text({"note": None, "number": 1}, {"note": None, "number": 2}) == b"\\N\t1\n\\N\t2\n"

    def test_truth_is_told_in_letters(self) -> None:
        assert _text({"good": True}, {"good": False}, {"good": None}) == b"t\nf\n\\N\n"

    def test_no_rows_are_no_text(self) -> None:
        assert copying(_TABLE, ("name", "number"), ()).text([], {}) == b""

    def test_a_row_without_one_of_the_columns_is_refused(self) -> None:
        with pytest.raises(KeyError):
            _text({"name": "a", "number": 1}, {"name": "b"})

    def test_nothing_is_refused_where_there_has_to_be_a_text(self) -> None:
        with pytest.raises(TypeError):
            _text({"name": None})

    def test_a_kind_of_column_that_is_not_known_is_refused(self) -> None:
        with pytest.raises(TypeError, match="say in postgresql_copy how"):
            copying(_TABLE, ("weight",), ())
