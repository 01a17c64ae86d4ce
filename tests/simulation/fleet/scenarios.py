"""The scenarios of a fleet by name, each at the size of a large deployment and at one that is quick to run."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.simulation.fleet import fairness, recovery, starvation, traffic
from tests.simulation.fleet.figures import Figures
from tests.simulation.fleet.fleet import Size


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What is lived through, and with how many; it raises ``ViolationError`` where a promise is broken."""

    run: Callable[[int, Size], Figures]
    full: Size
    quick: Size


SCENARIOS: Final = {
    "fairness": Scenario(run=fairness.share, full=fairness.FULL, quick=fairness.QUICK),
    "starvation": Scenario(run=starvation.stream, full=starvation.FULL, quick=starvation.QUICK),
    "outage": Scenario(run=recovery.outage, full=recovery.FULL, quick=recovery.QUICK),
    "losses": Scenario(run=recovery.losses, full=recovery.FULL, quick=recovery.QUICK),
    "traffic": Scenario(run=traffic.busy, full=traffic.FULL, quick=traffic.QUICK),
}
