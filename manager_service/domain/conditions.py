"""Conditions on measures, such as ``dead_ratio > 0.1 and size_bytes >= 1e6``.

Python's own parser reads them; of its trees only names, numbers, comparisons, sums, products and ``and``, ``or``
and ``not`` are taken. What a measure that is not known leaves open is neither met nor not met, as in SQL.
"""

import ast
import operator
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

MAX_CONDITION = 1_000
_MAX_PARTS = 200
_SHOWN_PARTS = 4
_MOST = sys.float_info.max

_COMPARISONS: Mapping[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_SUMS: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}

Measures = Mapping[str, float]


class ConditionError(ValueError):
    """A text is no condition; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition that was read.

    Attributes:
        text: the condition as it was written.
        names: the measures that it asks for, in the order of their names.
    """

    text: str
    names: tuple[str, ...]
    _tree: ast.expr

    def holds(self, measures: Measures) -> bool | None:
        """Tell whether the condition holds of these measures; ``None`` where that is not known."""
        return _truth(self._tree, measures)

    def told(self, measures: Measures) -> str:
        """Name the measures that the condition asks for with their values."""
        shown = [f"{name} {_told(measures.get(name))}" for name in self.names[:_SHOWN_PARTS]]
        return ", ".join(shown) + (" ..." if len(self.names) > _SHOWN_PARTS else "")


@lru_cache(maxsize=1_024)
def condition(text: str) -> Condition:
    """Read a condition; raise ``ConditionError``."""
    if not text.strip():
        raise ConditionError("is empty; give one such as 'dead_ratio > 0.1'")
    if len(text) > MAX_CONDITION:
        raise ConditionError(f"has {len(text)} characters; at most {MAX_CONDITION} are allowed")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConditionError(f"{text!r} is no condition; write one such as 'dead_ratio > 0.1'") from error
    parts = [node for node in ast.walk(tree) if isinstance(node, ast.expr)]
    if len(parts) > _MAX_PARTS:
        raise ConditionError(f"has {len(parts)} parts; at most {_MAX_PARTS} are allowed")
    for part in parts:
        _check(part)
    return Condition(text.strip(), tuple(sorted({p.id for p in parts if isinstance(p, ast.Name)})), tree)


def _check(part: ast.expr) -> None:
    match part:
        case ast.Name() | ast.BoolOp() | ast.UnaryOp(op=ast.Not() | ast.USub()):
            return
        case ast.Constant(value=int() | float() as number) if (
            not isinstance(number, bool) and abs(number) <= _MOST
        ):
            return
        case ast.Compare() if all(type(op) in _COMPARISONS for op in part.ops):
            return
        case ast.BinOp() if type(part.op) in _SUMS:
            return
    what = ast.unparse(part)[:64]
    raise ConditionError(f"has {what!r}; use names, numbers, < <= > >= == != + - * / and, or, not, parentheses")


def _truth(part: ast.expr, measures: Measures) -> bool | None:
    match part:
        case ast.BoolOp(op=ast.And()):
            return _all([_truth(value, measures) for value in part.values])
        case ast.BoolOp():
            return _any([_truth(value, measures) for value in part.values])
        case ast.UnaryOp(op=ast.Not()):
            truth = _truth(part.operand, measures)
            return None if truth is None else not truth
        case ast.Compare():
            return _compared(part, measures)
    value = _number(part, measures)
    return None if value is None else value != 0


def _compared(part: ast.Compare, measures: Measures) -> bool | None:
    values = [_number(value, measures) for value in (part.left, *part.comparators)]
    steps = zip(part.ops, values, values[1:], strict=False)
    return _all([None if a is None or b is None else _COMPARISONS[type(op)](a, b) for op, a, b in steps])


def _number(part: ast.expr, measures: Measures) -> float | None:
    match part:
        case ast.Constant():
            return float(part.value)  # type: ignore[arg-type]  # checked to be a number
        case ast.Name():
            return measures.get(part.id)
        case ast.UnaryOp(op=ast.USub()):
            value = _number(part.operand, measures)
            return None if value is None else -value
        case ast.BinOp():
            return _sum(_SUMS[type(part.op)], _number(part.left, measures), _number(part.right, measures))
    truth = _truth(part, measures)
    return None if truth is None else float(truth)


def _sum(of: Callable[[float, float], float], a: float | None, b: float | None) -> float | None:
    if a is None or b is None:
        return None
    try:
        return of(a, b)
    except (ZeroDivisionError, OverflowError):
        return None


def _all(truths: list[bool | None]) -> bool | None:
    if False in truths:
        return False
    return None if None in truths else True


def _any(truths: list[bool | None]) -> bool | None:
    if True in truths:
        return True
    return None if None in truths else False


def _told(value: float | None) -> Any:
    if value is None:
        return "not known"
    return f"{value:.0f}" if value == int(value) else f"{value:.4g}"
