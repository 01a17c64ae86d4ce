"""Tables whose vacuum the server is about to force: all their ages count, and the oldest goes first."""

from collections.abc import Iterator

import pytest

from tests.integration.operations.postgres_ground import by_name, change, holding, inspect, plan, value
from worker_service.domain.inspection import Scope

MILLION = 1_000_000
NAMES = ("large", "middle", "small", "young")
# The server counts in a circle: what lies before the first transaction is as good as 2^32 later.
_AGED = "UPDATE pg_class SET {column} = ({circle} + {now} - {age})::text::xid WHERE oid = {relation}"


def age(url: str, relation: str, *, xid: int = 0, mxid: int = 0) -> None:
    """Make the catalogue tell an age of a table, or of its long values: ``relation`` is an expression."""
    if xid:
        now = value(url, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
        text = _AGED.format(column="relfrozenxid", circle=2**32, now=now, age=xid, relation=relation)
    else:
        now = value(url, "SELECT next_multixact_id::text::bigint FROM pg_control_checkpoint()")
        text = _AGED.format(column="relminmxid", circle=2**32, now=now, age=mxid, relation=relation)
    change(url, text)


@pytest.fixture
def url(postgres_url: str) -> Iterator[str]:
    change(
        postgres_url,
        *(f"CREATE TABLE {name} (a int, b text)" for name in NAMES),
        "INSERT INTO large SELECT i, repeat('x', 100) FROM generate_series(1, 5000) AS i",
        "INSERT INTO middle SELECT i, 'x' FROM generate_series(1, 1000) AS i",
    )
    # So that autovacuum does not come between.
    with holding(postgres_url, f"LOCK TABLE {', '.join(NAMES)} IN SHARE UPDATE EXCLUSIVE MODE"):
        yield postgres_url


class TestUrgent:
    def test_the_age_of_multixacts_makes_a_table_urgent(self, url: str) -> None:
        age(url, "'small'::regclass", mxid=500 * MILLION)

        found = by_name(inspect(url, Scope.TABLE, "vacuum"))

        measures = found["public.small"].measures
        assert measures["mxid_age_ratio"] == pytest.approx(500 / 400, rel=0.01)
        assert measures["xid_age_ratio"] < 0.01
        assert {name for name, one in found.items() if one.urgent} == {"public.small"}

    def test_the_age_of_long_values_is_their_tables(self, url: str) -> None:
        toast = "(SELECT reltoastrelid FROM pg_class WHERE oid = '{}'::regclass)"
        age(url, toast.format("small"), xid=300 * MILLION)
        age(url, toast.format("middle"), mxid=500 * MILLION)

        found = by_name(inspect(url, Scope.TABLE, "vacuum"))

        assert found["public.small"].measures["xid_age_ratio"] == pytest.approx(300 / 200, rel=0.01)
        assert found["public.middle"].measures["mxid_age_ratio"] == pytest.approx(500 / 400, rel=0.01)
        assert {name for name, one in found.items() if one.urgent} == {"public.small", "public.middle"}

    def test_the_oldest_comes_first_by_what_it_has_left(self, url: str) -> None:
        age(url, "'large'::regclass", xid=210 * MILLION)
        age(url, "'middle'::regclass", mxid=450 * MILLION)
        age(url, "'small'::regclass", xid=300 * MILLION)
        oldest = ["small", "middle", "large", "young"]

        found = [one.object for one in inspect(url, Scope.TABLE, "analyze", "vacuum").objects]
        whole = [statement for statement in plan(url, "vacuum") if '"public"' in statement]

        assert found == [f"public.{name}" for name in oldest]
        assert [statement.split('"')[3] for statement in whole] == oldest

    def test_a_whole_database_has_both_ratios(self, url: str) -> None:
        [whole] = inspect(url, Scope.DATABASE, "vacuum").objects

        expected = value(url, "SELECT mxid_age(datminmxid) FROM pg_database WHERE datname = current_database()")
        assert whole.measures["mxid_age_ratio"] == pytest.approx(expected / (400 * MILLION))
