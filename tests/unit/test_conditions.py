import pytest

from manager_service.domain.conditions import MAX_CONDITION, ConditionError, condition

MEASURES = {"dead_rows": 30.0, "rows": 100.0, "never_analyzed": 0.0, "size_bytes": 1e6}


class TestHolds:
    @pytest.mark.parametrize(
        ("text", "holds"),
        [
            ("dead_rows > 29", True),
            ("dead_rows > 30", False),
            ("dead_rows >= 30", True),
            ("dead_rows < 30", False),
            ("dead_rows <= 30", True),
            ("dead_rows == 30", True),
            ("dead_rows != 30", False),
            ("10 < dead_rows < 20", False),
            ("10 < dead_rows < 50 < rows", True),
            ("dead_rows > 5 + 0.2 * rows", True),
            ("dead_rows - 31 > -2", True),
            ("dead_rows / rows > 0.3", False),
            ("dead_rows > 50 or size_bytes >= 1e6", True),
            ("dead_rows > 50 and size_bytes >= 1e6", False),
            ("not (dead_rows > 50 or never_analyzed)", True),
            ("never_analyzed", False),
            ("rows", True),
            ("  rows\t", True),
            ("1_000_000 == size_bytes", True),
            ("(rows > 1) + (dead_rows > 1) == 2", True),
        ],
    )
    def test_of_what_is_known(self, text: str, holds: bool) -> None:
        assert condition(text).holds(MEASURES) is holds

    @pytest.mark.parametrize(
        ("text", "holds"),
        [
            ("age > 1", None),
            ("age", None),
            ("not age", None),
            ("-age < 1", None),
            ("age + 1 > rows", None),
            ("rows / never_analyzed > 1", None),
            ("rows * 1e308 * 1e308 > 1", True),
            ("age > 1 or rows > 1", True),
            ("age > 1 or rows > 1000", None),
            ("age > 1 and rows > 1000", False),
            ("age > 1 and rows > 1", None),
            ("1 < age < 2", None),
            ("(age > 1) == 1", None),
        ],
    )
    def test_what_is_not_known_decides_nothing(self, text: str, holds: bool | None) -> None:
        assert condition(text).holds(MEASURES) is holds


class TestTold:
    def test_the_measures_are_told_that_were_asked_for(self) -> None:
        asked = condition("dead_rows > 0.1 * rows or age or size_bytes > 1.5")

        assert asked.names == ("age", "dead_rows", "rows", "size_bytes")
        assert asked.told({**MEASURES, "rows": 0.123456}) == (
            "age not known, dead_rows 30, rows 0.1235, size_bytes 1000000"
        )

    def test_of_many_the_first(self) -> None:
        assert condition("a + b + c + d + e").told({}).endswith("d not known ...")


class TestRefused:
    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("", "is empty"),
            ("   ", "is empty"),
            ("dead_rows >", "is no condition"),
            ("dead_rows = 3", "is no condition"),
            ("a b", "is no condition"),
            ("a; b", "is no condition"),
            ("(" * 900 + "a" + ")" * 99, "is no condition"),
            ("a\0", "is no condition"),
            ("f(1)", "has 'f\\(1\\)'"),
            ("__import__('os')", "has"),
            ("a.b > 1", "has 'a.b'"),
            ("a[0] > 1", "has"),
            ("'text' > 1", "has"),
            ("True", "has 'True'"),
            ("None", "has"),
            ("2 ** 9999999 > 1", "has '2 \\*\\* 9999999'"),
            ("a in (1, 2)", "has"),
            ("a is 1", "has"),
            ("(x := 1)", "has"),
            ("[a for a in b]", "has"),
            ("lambda: 1", "has"),
            ("a if b else c", "has"),
            ("~a", "has '~a'"),
            ("1j > 0", "has"),
            ("a > 1" + "0" * 400, "has '10000"),
            ("a > 1e999", "has '1e309'"),
            ("a" * (MAX_CONDITION + 1), "characters"),
            ("+".join("a" * 150), "parts"),
        ],
    )
    def test_whatever_is_no_condition(self, text: str, says: str) -> None:
        with pytest.raises(ConditionError, match=says):
            condition(text)
