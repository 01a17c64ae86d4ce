"""What keeps managers apart: each race is made certain, and lost as soon as its guard is taken out."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

import psycopg
import pytest
from sqlalchemy import bindparam, select, update

from manager_service.app.system import SystemIds
from manager_service.domain.errors import StoreUnavailableError, TargetInUseError
from manager_service.domain.fleet import Lock
from manager_service.domain.leases import LeaseDirective, Poll, ReportStatus
from manager_service.domain.model import SECOND
from manager_service.domain.states import Outcome, ParentJobState
from manager_service.store import (
    acquire,
    candidates,
    control,
    create,
    endings,
    fleet,
    postgresql_door,
    postgresql_exclusion,
    retention,
)
from manager_service.store import register as registering
from manager_service.store import report as reporting
from manager_service.store.eligible import SEED
from manager_service.store.parents import SELECT_PARENTS
from manager_service.store.postgresql import PostgresConnection
from manager_service.store.postgresql_exclusion import PostgresExclusion
from manager_service.store.statements import Among, Statement
from manager_service.store.tables import leases, parent_counts, parent_jobs, queue, sessions, targets
from manager_service.store.unit_of_work import UnitOfWork
from manager_service.store.writer import Writer
from tests.factories import World, plan, registration, served_target
from tests.integration.store.managers import Managers, Meeting, at_once, preceded
from tests.stores import open_any_store

Race = Callable[[Managers], Awaitable[None]]
Mutant = Callable[[], AbstractContextManager[Any]]
SHARED, ALONE = Lock(key="one server", exclusive=False), Lock(key="one server", exclusive=True)


class Runs:
    """Counts how often transactions were run."""

    def __init__(self) -> None:
        self.number = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        together = Writer._together

        async def counted(writer: Writer, *args: Any) -> Any:
            self.number += 1
            return await together(writer, *args)

        with patch.object(Writer, "_together", counted):
            yield


class Rows:
    """A transaction of somebody else, in the hands of the test."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url)

    async def lock(self, query: str) -> None:
        await asyncio.to_thread(self._connection.execute, query.encode())

    async def let_go(self) -> None:
        await asyncio.to_thread(self._connection.rollback)
        self._connection.close()


async def somebody_waits(url: str, *, number: int = 1) -> None:
    """Wait until so many transactions wait for a lock."""
    with psycopg.connect(url, autocommit=True) as connection:
        while (  # noqa: ASYNC110
            len(connection.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchall()) < number
        ):
            await asyncio.sleep(0.01)


async def claims_on_one_target(managers: Managers) -> None:
    one, other, _ = managers
    # The first grant of a rank makes the row of its turns, whose key would catch two at once.
    await one.finished_parent_job()
    workers = [
        await world.worker(served_target("orders", operations=(name,), locks=[]), worker_name=name)
        for world, name in ((one, "vacuum"), (other, "analyze"))
    ]
    # So many that each claim finds some that the other has not held.
    for name in ("vacuum", "analyze") * 3:
        await one.parent_job("orders", operations=(name,))
    with Meeting().before((acquire, "_grant")):
        answers = await at_once(*(worker.acquire(1) for worker in workers))
    await managers.check()
    assert sum(map(len, answers)) == 1


async def claims_under_one_parents_limit(managers: Managers) -> None:
    one, other, _ = managers
    workers = [
        await world.worker(served_target(name, locks=[]), worker_name=name)
        for world, name in ((one, "a"), (other, "b"))
    ]
    await one.parent_job("a", "b", max_parallel=1)
    with Meeting().before((acquire, "_grant")):
        answers = await at_once(*(worker.acquire(1) for worker in workers))
    await managers.check()
    assert sum(map(len, answers)) == 1


async def claims_of_a_shared_and_an_exclusive_key(managers: Managers) -> None:
    one, other, _ = managers
    a = await one.worker(served_target("a", locks=[SHARED]), worker_name="anna")
    b = await other.worker(served_target("b", locks=[ALONE]), worker_name="bert")
    await one.parent_job("a", "b")
    with Meeting().before((acquire, "_grant")):
        await at_once(a.acquire(1), b.acquire(1))
    await managers.check()


async def polls_of_one_session(managers: Managers) -> None:
    one, other, _ = managers
    # So many that each claim finds some that the other has not held.
    worker = await one.worker("a", "b", "c", "d", slots=1)
    await one.parent_job("a", "b", "c", "d")
    with Meeting().before((acquire, "_grant")):
        await at_once(
            one.store.acquire(worker.session_id, Poll(sequence=1, max_leases=1)),
            other.store.acquire(worker.session_id, Poll(sequence=2, max_leases=1)),
        )
    await managers.check()


async def a_grant_and_a_cancel(managers: Managers) -> None:
    one, other, _ = managers
    worker = await one.worker("orders")
    parent = await one.parent_job("orders")
    meeting, runs = Meeting(), Runs()
    with meeting.before((acquire, "_grant")), meeting.after((control, "stop_live")), runs.counted():
        granted, _ = await at_once(worker.acquire(1), other.store.cancel_parent_job(parent.id, "enough"))
    await managers.check()
    if granted:
        assert (await worker.beat(*granted)).leases == (LeaseDirective.CANCEL,)
    assert runs.number == 2, "without the lock the key of the events catches it, and a transaction runs again"


async def a_report_and_a_cancel(managers: Managers) -> None:
    one, other, _ = managers
    worker, lease = await one.running_child_job()
    meeting = Meeting()
    with meeting.before((reporting, "end_attempts")), meeting.before((control, "stop_live")):
        await at_once(worker.end(lease), other.store.cancel_parent_job(lease.parent_job_id, "enough"))
    await managers.check()
    await one.check(lease.parent_job_id)


async def a_report_and_an_expiry(managers: Managers) -> None:
    one, other, _ = managers
    worker, lease = await one.expired_lease()
    runs = Runs()
    with Meeting().before((reporting, "end_attempts"), (endings, "end_attempts")), runs.counted():
        status, taken_back = await at_once(worker.end(lease), other.store.expire_leases(limit=9))
    assert (status is ReportStatus.RECORDED) == (taken_back == 0)
    assert runs.number == 2, "without the lock the key of the attempts catches it, and a transaction runs again"
    await managers.check()


async def the_last_two_reports(managers: Managers) -> None:
    one, other, _ = managers
    parent = await one.parent_job("a", "b")
    workers = [await w.worker(t, worker_name=t) for w, t in ((one, "a"), (other, "b"))]
    held = [(await worker.acquire(1))[0] for worker in workers]
    runs = Runs()
    with Meeting().before((UnitOfWork, "_write_parents")), runs.counted():
        statuses = await at_once(*(w.end(lease) for w, lease in zip(workers, held, strict=True)))
    assert statuses == [ReportStatus.RECORDED] * 2
    assert await one.state(parent.id) is ParentJobState.COMPLETED
    assert runs.number == 2, "without the lock the key of the events catches it, and a transaction runs again"
    await managers.check()


async def two_instances_of_one_name(managers: Managers) -> None:
    one, other, _ = managers
    with Meeting().before((registering, "_insert")):
        await at_once(one.store.register(registration("a")), other.store.register(registration("b")))
    await managers.check()


async def a_registration_and_a_forgetting(managers: Managers) -> None:
    one, other, _ = managers
    worker = await one.worker("orders")
    await worker.store.deregister(worker.session_id)
    meeting = Meeting()
    with meeting.after((registering, "_known"), (fleet, "_targets")):
        _, forgot = await at_once(one.store.register(registration("orders")), other.store.forget_target("orders"))
    assert forgot is None or isinstance(forgot, TargetInUseError)
    assert [target.workers for target in await one.store.targets(labels={}, limit=9)] == [("anna",)]
    await managers.check()


async def a_renewal_after_a_close(managers: Managers) -> None:
    one, other, _ = managers
    worker = await one.worker("orders")
    with preceded(PostgresExclusion, "hold_session", lambda: other.store.deregister(worker.session_id)):
        await worker.register_again()
    await one.parent_job("orders")
    assert len(await at_once(worker.acquire(1))) == 1
    await managers.check()


async def a_drain_after_a_close(managers: Managers) -> None:
    one, other, _ = managers
    worker = await one.worker("orders")
    with preceded(PostgresConnection, "run", lambda: other.store.deregister(worker.session_id)):
        drained = await one.store.drain_worker("anna", terminate=False)
    assert drained.state == "closed"


async def a_pruning_after_a_retry(managers: Managers) -> None:
    one, other, _ = managers
    parent = await one.finished_parent_job(Outcome.FAILED)
    one.clock.pass_time(SECOND)

    with preceded(PostgresExclusion, "try_own_parent", lambda: other.store.retry_parent_job(parent.id)):
        assert await one.store.prune(age=0, limit=100) == 0
    await one.check(parent.id)
    await managers.check()


async def a_trimming_after_another(managers: Managers) -> None:
    one, other, _ = managers
    await one.finished_parent_job()
    with preceded(retention, "_trim", lambda: other.store.trim_events(keep=1, limit=100)):
        await one.store.trim_events(keep=1, limit=2)
    await managers.check()


async def an_outage_and_a_report(managers: Managers) -> None:
    one, other, _ = managers
    worker, lease = await one.running_child_job()
    rows = Rows(managers.url)
    await rows.lock(f"SELECT pg_advisory_xact_lock(hashtextextended('{lease.parent_job_id}', {SEED}))")
    ending = asyncio.create_task(worker.end(lease))
    await somebody_waits(managers.url)
    one.clock.pass_time(3600 * SECOND)
    making_up = asyncio.create_task(other.store.mark_alive())
    await somebody_waits(managers.url, number=2)
    free = True
    try:
        await rows.lock("SELECT 1 FROM leases FOR UPDATE NOWAIT")
    except psycopg.errors.LockNotAvailable:
        free = False
    await rows.let_go()
    assert await ending is ReportStatus.RECORDED
    await making_up
    assert free, "what a report is about to lock is held by what waits for its session"
    await managers.check()


RACES: list[Race] = [
    claims_on_one_target,
    claims_under_one_parents_limit,
    claims_of_a_shared_and_an_exclusive_key,
    polls_of_one_session,
    a_grant_and_a_cancel,
    a_report_and_a_cancel,
    a_report_and_an_expiry,
    the_last_two_reports,
    two_instances_of_one_name,
    a_registration_and_a_forgetting,
    a_renewal_after_a_close,
    a_drain_after_a_close,
    a_pruning_after_a_retry,
    a_trimming_after_another,
    an_outage_and_a_report,
]


@pytest.mark.parametrize("race", RACES)
async def test_the_race_is_won(managers: Managers, race: Race) -> None:
    await race(managers)


# Mutants: each takes one guard out.


@contextmanager
def heads_are_held(*, of: list[Any], **how: Any) -> Iterator[None]:
    """Hold heads in another way, those that are found at first and those that are picked with care."""
    found = candidates._may_go(candidates._first_heads.limit(bindparam("window")).subquery("heads"))
    free = found.limit(bindparam("heads")).with_for_update(of=of, **how)
    picked = select(queue.c.child_id).join(targets, targets.c.name == queue.c.target)
    hold = picked.where(Among(queue.c.child_id, "ids")).with_for_update(of=of, **how)
    with (
        patch.object(candidates, "FREE_HEADS", Statement(free)),
        patch.object(postgresql_exclusion, "HOLD_HEADS", Statement(hold)),
    ):
        yield


def targets_are_not_locked() -> AbstractContextManager[Any]:
    return heads_are_held(of=[queue], skip_locked=True)


def keys_are_not_locked() -> AbstractContextManager[Any]:
    hold = PostgresExclusion.heads

    def heads(self: PostgresExclusion, ids: Sequence[str], keys: Sequence[str]) -> Any:
        held = hold(self, ids, ())
        return lambda: (held()[0], set(keys))

    return patch.object(PostgresExclusion, "heads", heads)


def sessions_are_not_locked() -> AbstractContextManager[Any]:
    return patch.object(PostgresExclusion, "hold_session", lambda *_: None)


def names_are_not_locked() -> AbstractContextManager[Any]:
    return patch.object(PostgresExclusion, "hold_name", lambda *_: None)


@contextmanager
def parents_are_not_shared() -> Iterator[None]:
    with (
        patch.object(PostgresExclusion, "share_parents", lambda *_: None),
        patch.object(PostgresExclusion, "try_share_parents", lambda _, ids: lambda: ids),
        heads_are_held(of=[queue, targets], key_share=True, skip_locked=True),
    ):
        yield


def parents_are_not_owned() -> AbstractContextManager[Any]:
    return patch.object(PostgresExclusion, "own_parent", lambda *_: None)


def leases_are_not_locked() -> AbstractContextManager[Any]:
    plain = Statement(select(leases).where(Among(leases.c.child_id, "ids")))
    return patch.multiple(postgresql_exclusion, HOLD_LEASES=plain, HOLD_FREE_LEASES=plain)


def counts_are_not_locked() -> AbstractContextManager[Any]:
    return patch.object(
        PostgresExclusion, "counts", lambda self, ids: self._connection.ask(SELECT_PARENTS, ids=list(ids))
    )


@contextmanager
def known_targets_are_not_kept() -> Iterator[None]:
    known = Statement(select(targets).where(Among(targets.c.name, "names")))
    with patch.object(registering, "_KNOWN", known):
        yield


def found_sessions_are_believed() -> AbstractContextManager[Any]:
    return patch.object(registering, "_held", lambda _tx, found, _known: found)


def closed_sessions_are_drained() -> AbstractContextManager[Any]:
    direct = update(sessions).where(sessions.c.id == bindparam("of")).values(state=bindparam("state"))
    return patch.object(fleet, "_DIRECT", Statement(direct))


def what_was_old_is_pruned() -> AbstractContextManager[Any]:
    still = select(parent_jobs.c.id).where(parent_jobs.c.id == bindparam("of"))
    return patch.object(retention, "_STILL_OLD", Statement(still))


def the_first_event_goes_back() -> AbstractContextManager[Any]:
    n = parent_counts.c
    first = update(parent_counts).where(n.parent_id == bindparam("of")).values(first_sequence=bindparam("first"))
    return patch.object(retention, "_SET_FIRST", Statement(first))


def outages_are_made_up_among_others() -> AbstractContextManager[Any]:
    return patch.object(PostgresExclusion, "stand_alone", lambda *_: None)


@pytest.mark.parametrize(
    ("mutant", "race"),
    [
        (targets_are_not_locked, claims_on_one_target),
        (keys_are_not_locked, claims_under_one_parents_limit),
        (keys_are_not_locked, claims_of_a_shared_and_an_exclusive_key),
        (sessions_are_not_locked, polls_of_one_session),
        (parents_are_not_shared, a_grant_and_a_cancel),
        (parents_are_not_owned, a_grant_and_a_cancel),
        (leases_are_not_locked, a_report_and_an_expiry),
        (counts_are_not_locked, the_last_two_reports),
        (names_are_not_locked, two_instances_of_one_name),
        (known_targets_are_not_kept, a_registration_and_a_forgetting),
        (found_sessions_are_believed, a_renewal_after_a_close),
        (closed_sessions_are_drained, a_drain_after_a_close),
        (what_was_old_is_pruned, a_pruning_after_a_retry),
        (the_first_event_goes_back, a_trimming_after_another),
        (outages_are_made_up_among_others, an_outage_and_a_report),
    ],
)
async def test_without_its_guard_the_race_is_lost(managers: Managers, mutant: Mutant, race: Race) -> None:
    with mutant(), pytest.raises(AssertionError):
        await race(managers)


class TestOrder:
    async def test_workers_that_serve_the_same_targets_register_without_a_deadlock(
        self, managers: Managers
    ) -> None:
        names = [f"t{n:03}" for n in range(300)]
        one, other, _ = managers
        for version in range(6):
            served = [served_target(name, engine_version=str(version)) for name in names]
            known = [registration(*served, worker_name="anna"), registration(*served[::-1], worker_name="bert")]
            runs = Runs()
            with runs.counted():
                await at_once(one.store.register(known[0]), other.store.register(known[1]))

            # New names are found by another try; what is known is written by both in turn.
            assert runs.number == 2 or version == 0

    async def test_events_are_trimmed_in_the_order_in_which_counts_are_locked(self, managers: Managers) -> None:
        one, _, _ = managers
        parents = [(await one.finished_parent_job()).id for _ in range(5)]
        trimmed: list[str] = []
        trim = retention._trim

        def noted(tx: Any, kept: Any, below: int) -> int:
            trimmed.append(kept.parent_id)
            return trim(tx, kept, below)

        with patch.object(retention, "_trim", noted):
            await one.store.trim_events(keep=1, limit=1000)
        assert trimmed == sorted(parents)


class TestOthersInTheWay:
    async def test_a_deadlock_is_resolved_by_another_try(self, managers: Managers) -> None:
        one = managers.worlds[0]
        worker, lease = await one.running_child_job()
        rows, runs = Rows(managers.url), Runs()
        await rows.lock("SELECT 1 FROM parent_counts FOR UPDATE")
        with runs.counted():
            ending = asyncio.create_task(worker.end(lease))
            await somebody_waits(managers.url)
            await rows.lock("SELECT 1 FROM sessions FOR UPDATE")
            await rows.let_go()

            assert await ending is ReportStatus.RECORDED
        assert runs.number == 2
        await one.check(lease.parent_job_id)
        await managers.check()

    async def test_who_waits_too_long_is_told_and_the_others_go_on(self, managers: Managers) -> None:
        one = managers.worlds[0]
        held, lease = await one.running_child_job()
        free = await one.worker("other", worker_name="bert")
        await one.parent_job("other")
        [other_lease] = await free.acquire(1)
        rows = Rows(managers.url)
        with patch.dict(postgresql_door.SETTINGS, {"lock_timeout": "300ms"}):
            store = open_any_store(managers.url, clock=one.clock, ids=SystemIds(), timing=one.timing)
            await rows.lock(f"SELECT 1 FROM sessions WHERE id = '{held.session_id}' FOR UPDATE")
            world = World(store, one.clock, one.timing)
            answers = await asyncio.gather(
                store.heartbeat(held.heartbeat(lease)),
                store.heartbeat(free.heartbeat(other_lease)),
                world.parent_job("orders"),
                return_exceptions=True,
            )
        assert isinstance(answers[0], StoreUnavailableError)
        assert "lock timeout" in str(answers[0])
        assert not any(isinstance(answer, BaseException) for answer in answers[1:])
        await rows.let_go()

        assert (await store.heartbeat(held.heartbeat(lease))).leases == (LeaseDirective.CONTINUE,)
        await store.close()

    async def test_a_key_that_others_wrote_first_is_found_by_another_try(self, managers: Managers) -> None:
        one, other, _ = managers
        wanted = plan("a", request_id="one")
        with preceded(create, "_insert_parent", lambda: other.store.create_parent_job(wanted)):
            created = await one.store.create_parent_job(wanted)

        assert created.existing
        await managers.check()
