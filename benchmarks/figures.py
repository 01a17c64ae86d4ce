import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

RUNS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A measured figure: what it is, its values over the runs, its unit, and what it should reach."""

    name: str
    values: Sequence[float]
    unit: str
    aim: str = ""

    def __str__(self) -> str:
        """Show the median first, because that is the one to quote."""
        spread = f"[{min(self.values):.4g} to {max(self.values):.4g}]"
        aim = f"  (aim: {self.aim})" if self.aim else ""
        return f"{self.name:<58} {median(self.values):>9.4g} {self.unit:<3} {spread}{aim}"


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the value that so many percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(percent / 100 * (len(ordered) - 1)))]


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
