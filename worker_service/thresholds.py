"""Thresholds as a configuration file has them: ``CONDITION``, or ``OPERATION/OBJECT: CONDITION``."""

import ast
import re

from worker_service.domain.errors import ConfigurationError
from worker_service.domain.inspection import Threshold

MOST = 100
LONGEST = 1_000
_WHERE = re.compile(r"(?P<operation>[^@/]*)(?:/(?P<object>.+))?")


def parse_threshold(text: str) -> Threshold:
    """Read a threshold; what its condition may ask for the manager knows, when the target has been inspected.

    Raises:
        ConfigurationError: it is of no form that can be read.
    """
    where, colon, condition = text.rpartition(":")
    match = _WHERE.fullmatch(where.strip())
    if match is None or (colon and not where.strip()) or not _is_expression(condition.strip()):
        raise ConfigurationError(
            f"{text!r} in only_if of a [[targets]] table is no threshold: write a condition such as "
            "'dead_ratio > 0.1', or one for some alone such as 'vacuum/public.big*: dead_ratio > 0.3'."
        )
    named = {part: found.strip() for part, found in match.groupdict(default="").items()}
    return Threshold(condition=condition.strip(), **named)


def _is_expression(text: str) -> bool:
    if len(text) > LONGEST:
        return False
    try:
        ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
