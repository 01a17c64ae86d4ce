"""How many things a manager holds in memory, found by walking through its objects."""

from collections import Counter, deque
from collections.abc import Iterator
from typing import Any, Final

_CONTAINERS: Final = (dict, set, list, deque)
_OURS: Final = ("manager_service.", "tests.simulation.processes")


def holdings(*roots: Any) -> Counter[str]:
    """Return the sizes of all containers that are reachable through objects of the manager, by class and field.

    What a container holds in further containers counts as well.
    """
    found: Counter[str] = Counter()
    seen: set[int] = set()
    waiting = list(roots)
    while waiting:
        holder = waiting.pop()
        if id(holder) in seen or not _is_ours(holder):
            continue
        seen.add(id(holder))
        for name, value in _fields(holder):
            if isinstance(value, _CONTAINERS):
                found[f"{type(holder).__name__.lstrip('_')}.{name}"] += _size(value)
            waiting += _items(value)
    return found


def _is_ours(holder: Any) -> bool:
    return type(holder).__module__.startswith(_OURS)


def _fields(holder: Any) -> Iterator[tuple[str, Any]]:
    yield from vars(holder).items() if hasattr(holder, "__dict__") else ()
    for kind in type(holder).__mro__:
        for name in getattr(kind, "__slots__", ()):
            if hasattr(holder, name):
                yield name, getattr(holder, name)


def _size(value: Any) -> int:
    items = value.values() if isinstance(value, dict) else value
    return len(value) + sum(len(item) for item in items if isinstance(item, _CONTAINERS))


def _items(value: Any) -> list[Any]:
    """Return a value and what it contains, or whose method it is."""
    if isinstance(value, (list, tuple, deque, set)):
        return list(value)
    if isinstance(value, dict):
        return list(value.values())
    return [getattr(value, "__self__", value)]
