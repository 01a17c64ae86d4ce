"""What workers were answered, at three managers under faults, fits one order of events for each child job."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.battery.crowd import crowd
from tests.battery.deployment import PATIENCE, Deployment, seeded, tell
from tests.battery.faults import Fault, Kind
from tests.battery.hands import Hand, History, hands
from tests.battery.kept import Watchman
from tests.battery.linearizability import Call, Grant, Loss, Report, Rest, is_linearizable
from tests.battery.replicas import replicas

NAMES = ("anna", "berta", "clara", "dora", "emma", "fine")
TARGETS = tuple(f"target{number}" for number in range(12))
OPERATIONS = ("vacuum", "analyze", "reindex", "optimize")
ORDERS = 10
# Nobody beats here: a lease that is not reported lasts this long at least.
LEASE_SECONDS = 2.5
LATE = (LEASE_SECONDS - 0.2, LEASE_SECONDS + 2.5)
SECONDS = 9.0


def faults_of(chance: random.Random) -> Iterable[Fault]:
    """Draw faults: answers that are lost all the time, connections that are cut, managers that are killed."""
    at, number = 0.0, 0
    while at < SECONDS:
        at, number = at + chance.uniform(0.1, 0.4), number + 1
        kind = Kind.KILL_MANAGER if number % 16 == 8 else Kind.CUT if number % 6 == 3 else Kind.LOSE_ANSWERS
        yield Fault(at=at, kind=kind, which=chance.randrange(1_000), seconds=chance.uniform(0, 0.2))


class TestHistory:
    @pytest.mark.timeout(240)
    async def test_of_grants_and_reports_is_linearizable(self, deployment: Deployment) -> None:
        chance = seeded(0)
        history = History()
        async with (
            replicas(deployment, (), workers=()) as crew,
            hands(NAMES, crew.addresses, history, chance, late=LATE) as workers,
            crowd(crew.addresses, chance) as people,
        ):
            for worker in workers:
                await worker.register(TARGETS, OPERATIONS)
            for _ in range(ORDERS):
                await people.order(TARGETS, *((name, None) for name in OPERATIONS))
            stop = asyncio.Event()
            watchman = Watchman(crew.server.url(crew.url.rpartition("/")[2]))
            async with asyncio.TaskGroup() as group:
                group.create_task(watchman.go_on(stop))
                for worker in workers:
                    group.create_task(worker.work(workers, stop))
                await crew.suffer(list(faults_of(chance)))
                async with asyncio.timeout(PATIENCE):
                    await people.end_all()
                stop.set()
            kept = await asyncio.to_thread(attempts_of, crew.url)
        granted = history.granted()
        add_what_nobody_saw(history, kept, workers)
        tell(f"{dict(crew.struck)}, {crew.severing.severed} answers lost")
        tell(f"{len(history.calls)} children, {len(history.unanswered)} polls unanswered, {what_came(history)}")

        # Neither one poll nor all of a session are granted more than asked for, wherever they are made.
        assert all(number <= history.wanted[poll] for poll, number in granted.items())
        assert not watchman.found
        assert len(history.calls) == len(TARGETS) * len(OPERATIONS) * ORDERS
        for child, calls in history.calls.items():
            assert is_linearizable(calls), (child, sorted(calls, key=lambda call: call.begin))


Rows = Mapping[str, list[Any]]


def attempts_of(url: str) -> Rows:
    """Read the attempts of each child."""
    found: dict[str, list[Any]] = {}
    with psycopg.connect(url, row_factory=dict_row) as connection:
        for row in connection.execute("SELECT * FROM attempts ORDER BY child_id, attempt"):
            found.setdefault(row["child_id"], []).append(row)
    return found


def add_what_nobody_saw(history: History, kept: Rows, workers: Iterable[Hand]) -> None:
    """Add to the calls the grants that no answer told of, the leases that may have run out, and what was kept."""
    for child, rows in kept.items():
        calls = history.calls.setdefault(child, [])
        known = {call.operation.lease_id for call in calls if isinstance(call.operation, Grant)}
        calls += [call for row in rows if row["lease_id"] not in known for call in ghosts(history, row)]
        grants = [call for call in calls if isinstance(call.operation, Grant)]
        calls += [Call(begin=lease.begin + LEASE_SECONDS, operation=loss) for lease, loss in losses(grants)]
        records = frozenset(
            (row["attempt"], row["lease_id"], row["report_id"], row["outcome"]) for row in rows if row["outcome"]
        )
        after = max(call.end if call.certain else call.begin for call in calls) + 1_000
        calls.append(Call(begin=after, end=after + 1, operation=Rest(records=records)))


def ghosts(history: History, row: Any) -> Iterable[Call]:
    """Return a grant that nobody was told of: by the first of the worker's polls whose answer was lost."""
    polls = [poll for poll in history.unanswered if poll.worker_name == row["worker_name"]]
    for poll in sorted(polls, key=lambda poll: poll.begin)[:1]:
        grant = Grant(lease_id=row["lease_id"], attempt=row["attempt"], session_id=poll.session_id, poll=poll.poll)
        yield Call(begin=poll.begin, operation=grant)


def losses(grants: Iterable[Call]) -> Iterable[tuple[Call, Loss]]:
    for call in grants:
        if isinstance(call.operation, Grant):
            yield call, Loss(lease_id=call.operation.lease_id)


def what_came(history: History) -> Counter[str]:
    """Count what calls were answered with."""
    found: Counter[str] = Counter()
    for calls in history.calls.values():
        for call in calls:
            if isinstance(call.operation, Report):
                found[call.answer or "report unanswered"] += 1
            else:
                found[type(call.operation).__name__.lower()] += 1
    return found
