"""Workers maintain two databases by every name, scope and order; the servers' logs say what met in them."""

import asyncio
from collections.abc import Sequence

import pytest

from overhaul.v1 import job_pb2 as job
from overhaul.v1 import job_service_pb2 as jobs
from tests.battery.deployment import PATIENCE, Deployment, children_of, client_of, events_of, tell
from tests.battery.overlaps import Work, overlaps
from tests.battery.server_logs import mariadb_works, postgres_works
from tests.battery.shops import MariadbShop, PostgresShop, hire, order
from tests.battery.verdicts import assert_told_once
from tests.services import address_of

DONE = job.CHILD_JOB_STATE_COMPLETED
WORKERS = ("anna", "berta", "clara")
# What waited for another in vain; nobody else uses the databases.
TROUBLES = ("deadlock", "lock timeout", "could not obtain lock", "_ccnew", "_ccold")


def work(child: str, begin: float, end: float, *tables: str, database: str = "shop", attempt: int = 1) -> Work:
    return Work(
        child=child,
        attempt=attempt,
        database=database,
        tables=frozenset(tables),
        text="VACUUM",
        begin=begin,
        end=end,
    )


class TestOverlaps:
    def test_two_on_one_table_at_once_are_found(self) -> None:
        first, second = work("a", 1, 3, "book"), work("b", 2, 4, "book")

        assert overlaps([second, first]) == [(first, second)]

    def test_one_that_outlives_its_worker_meets_its_successor(self) -> None:
        zombie, successor = work("a", 1, 9, "book"), work("a", 2, 3, "book", attempt=2)

        assert overlaps([zombie, successor]) == [(zombie, successor)]

    def test_a_part_meets_what_it_is_part_of(self) -> None:
        parent, part = work("a", 1, 3, "sale", "sale_1"), work("b", 2, 4, "sale_1")

        assert overlaps([parent, part]) == [(parent, part)]

    def test_a_whole_database_meets_everything_between_its_first_statement_and_its_last(self) -> None:
        first, last, between = work("a", 1, 2, "book"), work("a", 5, 6, "note"), work("b", 3, 4, "vote")

        assert overlaps([first, last, between]) == []
        assert [other for _, other in overlaps([first, last, between], whole={"a"})] == [between]

    @pytest.mark.parametrize(
        "other",
        [
            work("b", 3, 4, "book"),
            work("b", 2, 4, "note"),
            work("b", 2, 4, "book", database="elsewhere"),
            work("a", 2, 4, "book"),
        ],
        ids=["after it", "another table", "another database", "the same session"],
    )
    def test_others_do_not_meet(self, other: Work) -> None:
        assert overlaps([work("a", 1, 3, "book"), other]) == []

    def test_a_log_tells_who_did_what_from_when_to_when(self) -> None:
        log = (
            '1.000|7|shop|overhaul:a:2|LOG:  statement: REINDEX INDEX CONCURRENTLY "public"."book_word"\n'
            '1.100|8|shop|overhaul:b:1|LOG:  statement: VACUUM (SKIP_LOCKED) "public"."note"\n'
            "1.200|7|shop|overhaul:a:2|LOG:  duration: 200.000 ms\n"
            "1.300|8|shop|overhaul:b:1|ERROR:  canceling statement due to user request\n"
            '1.400|9|shop|psql|LOG:  statement: VACUUM "public"."note"\n'
            '1.500|8|shop|overhaul:b:1|LOG:  statement: ANALYZE "public"."note"\n'
            "1.600|5|||LOG:  starting PostgreSQL 15.18\n"
        )

        found = postgres_works(log.splitlines(), {'"public"."book_word"': frozenset({"book"})})

        assert [(one.child, one.attempt, one.begin, one.end, one.well) for one in found] == [
            ("a", 2, 1.0, 1.2, True),
            ("b", 1, 1.1, 1.3, False),
            ("b", 1, 1.5, 1.6, False),
        ]
        assert [set(one.tables or ()) for one in found] == [{"book"}, {'"public"."note"'}, {'"public"."note"'}]


class TestConflicts:
    @pytest.mark.timeout(240)
    async def test_no_two_operations_meet_on_a_table(
        self, deployment: Deployment, shops: tuple[PostgresShop, MariadbShop]
    ) -> None:
        postgres, mariadb = shops
        before = postgres.content(), mariadb.content()
        manager = await asyncio.to_thread(deployment.manager)
        address = address_of(manager)
        urls: dict[str, tuple[str, str | None]] = {
            # The manager knows that the first two of each are one; of the third the locks in the servers alone do.
            "shop": (postgres.url, None),
            "store": (postgres.url, None),
            "stall": (postgres.url, "elsewhere"),
            "mart": (mariadb.url, None),
            "mall": (mariadb.url, None),
            "booth": (mariadb.url, "elsewhere"),
        }
        for name in WORKERS:
            await asyncio.to_thread(hire, deployment, address, name, urls)

        async with client_of(address) as client:
            parents = [
                await order(client, ["shop", "mart"], "vacuum", "analyze", "reindex"),
                await order(client, ["store", "mall"], "reindex", "analyze", scope=job.SCOPE_INDEX),
                await order(client, ["store", "mall"], "vacuum", scope=job.SCOPE_DATABASE),
                await order(client, ["shop"], "reindex:concurrently=false", "cluster", "vacuum:full=true"),
                await order(client, ["stall"], "reindex", "vacuum", scope=job.SCOPE_INDEX),
                await order(client, ["booth"], "reindex", "integrity_check"),
                await order(client, ["stall", "booth"], "analyze", scope=job.SCOPE_DATABASE),
            ]
            async with asyncio.timeout(3 * PATIENCE):
                events = await asyncio.gather(*(events_of(address, parent) for parent in parents))
            found = [await children_of(client, parent) for parent in parents]

        children = [[child for child in of_parent if not is_left_out(child)] for of_parent in found]
        assert {whose(child) for of_parent in found for child in of_parent if is_left_out(child)} == {
            ("mart", "reindex", "left out: vacuum rebuilds it with all its indexes")
        }
        for story, of_parent in zip(events, children, strict=True):
            assert_told_once(story, of_parent)
        everyone = [child for of_parent in children for child in of_parent]
        assert_done(everyone)
        assert_apart(postgres_works(postgres.log(), postgres.tables_of()), everyone)
        assert_apart(mariadb_works(mariadb.server, mariadb.name), everyone)
        assert not [line for line in postgres.log() if any(word in line for word in TROUBLES)]
        busy = sum(item.outcome == job.OUTCOME_RELEASED for child in everyone for item in child.attempts)
        tell(f"{len(everyone)} children, {busy} leases given back because the target was busy")
        assert (postgres.content(), mariadb.content()) == before


def assert_done(children: Sequence[jobs.GetChildJobResponse]) -> None:
    """Assert that each was done, however often it was busy or tried, but for those that had nothing to do."""
    ended = [child.child_job for child in children]
    undone = [one for one in ended if one.state not in {DONE, job.CHILD_JOB_STATE_SKIPPED}]
    assert not undone, "\n".join(str(one) for one in undone)
    assert {(one.target, one.operation) for one in ended if one.state == DONE} == {
        (one.target, one.operation) for one in ended
    }


def is_left_out(child: jobs.GetChildJobResponse) -> bool:
    """Tell whether a child was skipped when it was planned, which is told of many at once."""
    return child.child_job.state == job.CHILD_JOB_STATE_SKIPPED and not child.child_job.attempts


def whose(child: jobs.GetChildJobResponse) -> tuple[str, str, str]:
    return child.child_job.target, child.child_job.operation, child.child_job.reason


def assert_apart(works: Sequence[Work], children: Sequence[jobs.GetChildJobResponse]) -> None:
    """Assert that there was something to be kept apart, and that nothing met."""
    whole = {child.child_job.id for child in children if not child.child_job.HasField("object")}
    assert {one.child in whole for one in works} == {True, False}
    tell(f"{len(works)} statements, {_beside(works)} of them beside another")
    assert _beside(works), "nothing ran at the same time, so nothing was shown"
    met = overlaps(works, whole)
    assert not met, "\n".join(f"{one}\n  {other}" for one, other in met)


def _beside(works: Sequence[Work]) -> int:
    return sum(any(other.begin < one.begin < other.end for other in works) for one in works)
