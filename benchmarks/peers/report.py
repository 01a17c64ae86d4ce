"""What the contest came to: the figures, and the targets that Overhaul is held to."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.peers.contest import CPU, OTHERS, P50, P99, RATE, Results


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """How Overhaul should stand to a peer: a ratio that is required, and one to aim at."""

    figure: str
    ours: str
    theirs: str
    required: float
    aim: float

    @property
    def less_is_better(self) -> bool:
        """Tell costs from rates."""
        return self.figure != RATE

    def is_reached(self, ratio: float) -> bool:
        """Tell whether a ratio is as required."""
        return ratio <= self.required if self.less_is_better else ratio >= self.required


_PAIRS = [(f"overhaul, slots {wide}", f"pgqueuer, batch {wide}") for wide in (1, 10, 100)]
TARGETS = (
    *(
        Target(figure=RATE, ours=ours, theirs=theirs, required=required, aim=aim)
        for (ours, theirs), required, aim in zip(_PAIRS, (0.9, 0.75, 0.8), (1.2, 1.0, 1.0), strict=True)
    ),
    Target(figure=RATE, ours="overhaul, slots 1", theirs="procrastinate, concurrency 1", required=1.2, aim=1.2),
    Target(figure=RATE, ours="overhaul, slots 10", theirs="procrastinate, concurrency 10", required=6, aim=6),
    *(Target(figure=CPU, ours=ours, theirs=theirs, required=1.2, aim=1.0) for ours, theirs in _PAIRS),
    Target(figure=P50, ours="overhaul, slots 10", theirs="pgqueuer, batch 10", required=1.1, aim=1.0),
    Target(figure=P99, ours="overhaul, slots 10", theirs="pgqueuer, batch 10", required=1.0, aim=1.0),
)


def report(results: Results) -> Iterator[str]:
    """Tell it line by line: medians, then the least and the most of the rounds."""
    yield results.setting
    yield ""
    yield from _lifecycles(results)
    yield ""
    yield from _latencies(results)
    yield ""
    yield from _targets(results)


def _lifecycles(results: Results) -> Iterator[str]:
    yield f"{'lifecycle':<32}{RATE:<28}{OTHERS:<24}{CPU:<28}of which"
    for (figure, entry), rates in results.figures.items():
        if figure == RATE:
            others, costs = (results.figures[each, entry] for each in (OTHERS, CPU))
            parts = [f"{who} {median(of):.3f}" for (name, who), of in results.spenders.items() if name == entry]
            told = f"{_spread(rates, ',.0f'):<28}{_spread(others, '.1f'):<24}{_spread(costs, '.3f'):<28}"
            yield f"  {entry:<30}{told}{', '.join(parts)}"


def _latencies(results: Results) -> Iterator[str]:
    yield f"{'dispatch, idle, in ms':<32}{'median':<28}99th percentile"
    for (figure, entry), medians in results.figures.items():
        if figure == P50:
            yield f"  {entry:<30}{_spread(medians, '.2f'):<28}{_spread(results.figures[P99, entry], '.2f')}"


def _targets(results: Results) -> Iterator[str]:
    yield f"{'against the peers':<84}{'ratio':<24}{'required':<10}{'aim':<6}{'':<9}by round"
    for target in TARGETS:
        ours, theirs = (results.figures[target.figure, entry] for entry in (target.ours, target.theirs))
        ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
        name = f"{target.figure}: {target.ours} / {target.theirs}"
        sign = "<=" if target.less_is_better else ">="
        verdict = "reached" if target.is_reached(median(ratios)) else "missed"
        rounds = " ".join(f"{ratio:.2f}" for ratio in ratios)
        required, aim = f"{sign} {target.required}", f"{target.aim}"
        yield f"  {name:<82}{_spread(ratios, '.2f'):<24}{required:<10}{aim:<6}{verdict:<9}{rounds}"


def _spread(values: Sequence[float], form: str) -> str:
    return f"{median(values):{form}} [{min(values):{form}} to {max(values):{form}}]"
