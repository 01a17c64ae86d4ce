from collections.abc import Iterable, Sequence


def lanes(keys_of_children: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """Give each child its lane: children that share a key, directly or through others, get the same.

    Args:
        keys_of_children: the exclusive lock keys of each child, in the order of the plan; a child without
            keys has a lane of its own.

    Returns:
        One lane per child: the position of the lane's first child, as text.
    """
    groups = _Groups()
    holder: dict[str, int] = {}
    for position, keys in enumerate(keys_of_children):
        groups.add(position)
        for key in keys:
            groups.join(holder.setdefault(key, position), position)
    return tuple(str(groups.first(position)) for position in range(groups.size))


class _Groups:
    """Disjoint groups of positions, each known by its smallest."""

    def __init__(self) -> None:
        self._up: list[int] = []

    @property
    def size(self) -> int:
        return len(self._up)

    def add(self, position: int) -> None:
        self._up.append(position)

    def first(self, position: int) -> int:
        up = self._up
        while up[position] != position:
            up[position] = up[up[position]]
            position = up[position]
        return position

    def join(self, one: int, other: int) -> None:
        one, other = self.first(one), self.first(other)
        self._up[max(one, other)] = min(one, other)
