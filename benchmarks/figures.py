import os
from collections.abc import Iterator, Sequence
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
    return sum(_ticks(pid)[:2]) / os.sysconf("SC_CLK_TCK")


def tree_cpu_seconds(pid: int) -> float:
    """Return the CPU seconds that a process and all below it have used so far, those that have ended included."""
    return sum(sum(_ticks(each)) for each in _tree(pid)) / os.sysconf("SC_CLK_TCK")


def machine_cpu_seconds() -> float:
    """Return the CPU seconds that all processes of the machine have used so far."""
    user, nice, system, _idle, _waiting, *interrupts = Path("/proc/stat").read_text().split()[1:8]
    return sum(map(int, (user, nice, system, *interrupts))) / os.sysconf("SC_CLK_TCK")


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from _tree(int(child))


def _ticks(pid: int) -> tuple[int, ...]:
    """Return the user and system time of a process, and those of its children that it has waited for."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # it has ended since its parent named it
        return (0, 0, 0, 0)
    return tuple(int(field) for field in stat.rpartition(")")[2].split()[11:15])
