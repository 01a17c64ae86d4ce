"""Live through seeds, and say how to see again what went wrong."""

from collections import Counter
from collections.abc import Callable

from tests.simulation.invariants import ViolationError
from tests.simulation.world import StoppedError, World

Tally = Counter[str]


def live(
    seed: int,
    *,
    most_steps: int | None = None,
    trace: Callable[[str], None] | None = None,
    tally: Tally | None = None,
) -> str | None:
    """Live through a seed; return what went wrong and the command that replays it, or ``None``.

    Args:
        seed: all chance comes from it.
        most_steps: stop after so many steps.
        trace: told what happens.
        tally: counts what was seen.
    """
    world = World(seed, most_steps=most_steps, trace=trace)
    try:
        world.run()
    except StoppedError:
        return None
    except ViolationError as violation:
        steps = world.loop.steps
        return f"{violation}\nreplay it: python -m tests.simulation --seed {seed} --steps {steps}"
    finally:
        if tally is not None:
            tally.update(world.tally())
    return None
