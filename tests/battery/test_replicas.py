"""Managers, workers and PostgreSQL are killed, stopped and cut off while clients order, steer and watch."""

import asyncio
import os
import random
from collections.abc import Mapping

import pytest

from overhaul.v1 import job_pb2 as job
from overhaul.v1 import job_service_pb2 as jobs
from tests.battery.crowd import Mood, crowd
from tests.battery.deployment import Deployment, seeded, tell
from tests.battery.faults import plan
from tests.battery.kept import Kept, Watchman, assert_at_rest, assert_recorded_by_the_lease, read
from tests.battery.replicas import WORKERS, replicas
from tests.battery.stories import assert_told_alike
from tests.battery.verdicts import assert_done_apart

BEDS = tuple(f"bed{number}" for number in range(14))
FIRST_ORDERS = 6
SECONDS = 60 * float(os.environ.get("OVERHAUL_SOAK_MINUTES") or 1.1)
SETTLED = 150.0
_RECORDED = (job.OUTCOME_COMPLETED, job.OUTCOME_FAILED, job.OUTCOME_CANCELLED)


class TestReplicas:
    @pytest.mark.timeout(SECONDS + 2 * SETTLED)
    async def test_nothing_is_lost_doubled_or_left_out_whatever_is_struck(self, deployment: Deployment) -> None:
        chance = seeded(0)
        mood = random.Random(chance.getrandbits(64))
        faults = list(plan(chance, SECONDS))
        for fault in faults:
            tell(str(fault))
        async with replicas(deployment, BEDS, workers=WORKERS) as crew, crowd(crew.addresses, mood) as people:
            clients, watchman = Mood(people, BEDS, mood), Watchman(crew.server.url(crew.url.rpartition("/")[2]))
            for _ in range(FIRST_ORDERS):
                await clients.order()
            stop = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                group.create_task(watchman.go_on(stop))
                acting = asyncio.Event()
                steering = group.create_task(clients.go_on(acting))
                await crew.suffer(faults)
                acting.set()
                await steering
                async with asyncio.timeout(SETTLED):
                    await people.end_all()
                stop.set()
            async with asyncio.timeout(SETTLED):
                seen = await people.seen()
            kept = await asyncio.to_thread(read, crew.url)
        tell(
            f"{dict(crew.struck)}, {crew.severing.severed} answers lost; {clients.done}; {people.repeats} repeats"
        )

        assert not [line for manager in deployment.managers for line in manager.lines if '"incident"' in line]
        assert crew.severing.severed
        assert watchman.looks
        assert not watchman.found
        assert_at_rest(kept)
        assert_recorded_by_the_lease(kept)
        assert_all_there(people.orders, kept)
        rounds = [
            assert_told_alike(of_parent, kept.children_of(parent), people.orders[parent].max_parallel)
            for parent, of_parent in seen.items()
        ]
        excused = assert_really_done(deployment, kept)
        tell(
            f"{len(seen)} parent jobs in {sum(rounds)} rounds, {len(kept.children)} children, "
            f"{len(kept.attempts)} attempts, {len(kept.stale)} stale reports, {excused} overlaps of the cut off, "
            f"{watchman.looks} looks"
        )


def assert_all_there(orders: Mapping[str, jobs.CreateParentJobRequest], kept: Kept) -> None:
    """Assert that there is each job that was ordered, once, with each of its children, and no other."""
    assert set(kept.parents) == set(orders)
    assert {row["request_id"] for row in kept.parents.values()} == {order.request_id for order in orders.values()}
    for parent, order in orders.items():
        asked = [(target, operation.name) for target in order.targets for operation in order.operations]
        assert sorted((c["target"], c["operation"]) for c in kept.children_of(parent)) == sorted(asked)


def assert_really_done(deployment: Deployment, kept: Kept) -> int:
    """Assert that what is recorded was done, in the worker it names; return how many overlaps are excused.

    Only a cancel that came between the grant and the beginning is recorded for what was never begun.
    """
    excused = 0
    now = max(deployment.died.values(), default=0) + 10**15
    for bed in BEDS:
        naps = deployment.naps(bed)
        done = {(nap.child_job_id, nap.attempt): nap for nap in naps}
        assert set(done) <= set(kept.attempts), "done without a lease"
        excused += assert_done_apart(naps, kept.attempts, deployment.died, now)
        on_bed = {child["id"] for child in kept.children if child["target"] == bed}
        for (child, number), attempt in kept.attempts.items():
            if child in on_bed and attempt.outcome in _RECORDED:
                nap = done.get((child, number))
                if nap is None:
                    assert attempt.outcome == job.OUTCOME_CANCELLED, f"{attempt}never began"
                    continue
                assert nap.end is not None
                assert deployment.names[nap.pid] == attempt.worker_name
    return excused
