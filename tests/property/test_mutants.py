"""Every guard of the job store is missed when it is gone: a test that the store passes notices each mutant."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any

import pytest

from manager_service.domain.fleet import Timing
from manager_service.domain.leases import LeaseDirective
from manager_service.domain.states import ChildJobState, FailureMode, FailurePolicy, Outcome
from tests.doubles import CountingIds, FakeClock
from tests.factories import World, failure
from tests.property import mutants
from tests.property.crash import crash_everywhere
from tests.property.driving import NewUrl, drive
from tests.stores import open_any_store

# The machine's test passes with these seeds and more.
SEEDS = range(12)

Mutant = Callable[[], AbstractContextManager[Any]]


class TestTheMachineNotices:
    def kills(self, mutant: Mutant, new_url: NewUrl, what: str, *, first: int = 0) -> None:
        """Look where the mutant was last found, and on from there."""
        with mutant(), pytest.raises(AssertionError, match=what):
            drive(new_url, seeds=SEEDS[first:])

    def test_a_fence_by_worker_only(self, new_url: NewUrl) -> None:
        self.kills(mutants.fence_by_worker_only, new_url, "expected .*STALE")

    def test_a_fence_by_state_only(self, new_url: NewUrl) -> None:
        self.kills(mutants.fence_by_state_only, new_url, "expected .*STALE")

    def test_no_fence_at_all(self, new_url: NewUrl) -> None:
        self.kills(mutants.no_fence, new_url, "expected .*(STALE|ALREADY_RECORDED)")

    def test_an_attempt_that_is_handed_back(self, new_url: NewUrl) -> None:
        self.kills(mutants.attempt_handed_back, new_url, "expected . attempts")

    def test_slots_that_are_stored_instead_of_counted(self, new_url: NewUrl) -> None:
        self.kills(mutants.slots_stored_instead_of_counted, new_url, "could have been granted")

    def test_a_delayed_poll_that_claims(self, new_url: NewUrl) -> None:
        self.kills(mutants.delayed_polls_claim, new_url, "a lower poll was granted", first=3)

    def test_an_outage_that_expires_leases(self, new_url: NewUrl) -> None:
        self.kills(mutants.outages_expire_leases, new_url, "ran out|falls due")


class TestExpiryBesideAHeartbeat:
    """What was renewed while the expirer looked is not taken back."""

    async def test_a_lease_that_is_told_to_continue_stays_live(self, new_url: NewUrl) -> None:
        async with opened(new_url) as world:
            await self.race(world)

    async def test_an_expiry_filtered_by_id_only_is_noticed(self, new_url: NewUrl) -> None:
        async with opened(new_url) as world:
            with mutants.expiry_filtered_by_id_only(), pytest.raises(AssertionError, match="was told to continue"):
                await self.race(world)

    async def race(self, world: World) -> None:
        worker, lease = await world.expired_lease()
        expiring = asyncio.create_task(world.store.expire_leases(limit=9))
        await asyncio.sleep(0.05)
        answer = await worker.beat(lease)
        await expiring

        [directive] = answer.leases
        child = (await world.store.child_job(lease.child_job_id))[0]
        continues = directive is LeaseDirective.CONTINUE
        assert continues == (child.state is ChildJobState.RUNNING), f"{child.state}, but was told to {directive}"


class TestACrashBetweenTransactions:
    """Wherever the manager dies, the next one finds parent jobs that stand as their children say."""

    async def test_a_parent_job_is_decided_with_its_child(self, new_url: NewUrl) -> None:
        assert await crash_everywhere(new_url, self.scenario) > 5

    async def test_a_parent_job_decided_outside_the_transaction_is_noticed(self, new_url: NewUrl) -> None:
        with mutants.parent_decided_outside_the_transaction(), pytest.raises(AssertionError, match="a crash left"):
            await crash_everywhere(new_url, self.scenario)

    async def scenario(self, world: World) -> None:
        worker = await world.worker("a", "b", slots=2)
        await world.parent_job("a", operations=("vacuum", "analyze"))
        policy = FailurePolicy(mode=FailureMode.FAIL_FAST)
        failing = await world.parent_job("b", operations=("vacuum", "analyze"), failure_policy=policy)
        for lease in await worker.acquire():
            final = failure(retryable=False) if lease.parent_job_id == failing.id else None
            await worker.end(lease, Outcome.FAILED if final else Outcome.COMPLETED, failure=final)
        await world.store.sweep(failing.id, limit=9)
        for lease in await worker.acquire():
            await worker.beat(lease)
            await worker.end(lease)


@asynccontextmanager
async def opened(new_url: NewUrl) -> AsyncIterator[World]:
    clock, timing = FakeClock(), Timing()
    world = World(open_any_store(new_url(), clock=clock, ids=CountingIds(), timing=timing), clock, timing)
    try:
        yield world
    finally:
        await world.store.close()
