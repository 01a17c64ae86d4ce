import asyncio
from collections import deque

from manager_service.store.replicated import PostgresTransactions
from manager_service.store.writer import Entry


async def test_what_waits_for_locks_comes_in_one_order_and_what_passes_over_them_last() -> None:
    loop = asyncio.get_running_loop()
    transactions = object.__new__(PostgresTransactions)
    keys = ["", "session 2", "", "session 1"]
    queue = deque(Entry(lambda _: None, loop.create_future(), key) for key in keys)

    chosen = transactions.choose(queue)

    assert [entry.key for entry in chosen] == ["session 1", "session 2", "", ""]
    assert not queue


async def test_of_a_long_queue_a_bounded_piece_is_taken() -> None:
    loop = asyncio.get_running_loop()
    transactions = object.__new__(PostgresTransactions)
    queue = deque(Entry(lambda _: None, loop.create_future(), f"{number:03}") for number in reversed(range(250)))

    chosen = transactions.choose(queue)

    # Who came first goes first; only within a transaction is it another order.
    assert [entry.key for entry in chosen] == [f"{number:03}" for number in range(150, 250)]
    assert len(queue) == 150
