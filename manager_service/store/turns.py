"""The turns of the dispatch order, as one transaction reads and moves them."""

from sqlalchemy import bindparam, insert, select, update

from manager_service.store.statements import Connection, Rows, Statement
from manager_service.store.tables import turns

# There are no more ranks than priorities.
_TURNS = Statement(select(turns.c.rank, turns.c.turn))
# A hint of where newcomers join: while another transaction sets it, that is good enough.
_SET_TURN = Statement(
    update(turns)
    .where(
        turns.c.rank.in_(
            select(turns.c.rank)
            .where(turns.c.rank == bindparam("of"), turns.c.turn < bindparam("turn"))
            .with_for_update(skip_locked=True)
        )
    )
    .values(turn=bindparam("turn"))
)
_ADD_TURN = Statement(
    insert(turns).from_select(
        ["rank", "turn"],
        select(bindparam("rank", type_=turns.c.rank.type), bindparam("turn", type_=turns.c.turn.type)).where(
            ~select(turns.c.rank).where(turns.c.rank == bindparam("rank")).exists()
        ),
    )
)


class Turns:
    """The turn of the last grant of each rank: read once, moved in memory, written at the end."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._asked: Rows | None = None
        self._read: dict[int, int] | None = None
        self._new: set[int] = set()
        self._moved: set[int] = set()

    def ask(self) -> None:
        """Ask for the turns, which are about to be needed."""
        if self._asked is None:
            self._asked = self._connection.ask(_TURNS)

    def of(self, rank: int) -> int:
        """Return the turn of the last grant of a rank."""
        return self._known().get(rank, 0)

    def granted(self, rank: int, turn: int) -> None:
        """Move a rank to the turn of a grant."""
        known = self._known()
        if rank not in known:
            self._new.add(rank)
        if turn > known.get(rank, 0):
            known[rank] = turn
            self._moved.add(rank)

    def write(self) -> None:
        """Write what was moved."""
        for rank in sorted(self._moved):
            if rank in self._new:
                self._connection.post(_ADD_TURN, rank=rank, turn=self.of(rank))
            else:
                self._connection.post(_SET_TURN, of=rank, turn=self.of(rank))

    def _known(self) -> dict[int, int]:
        if self._read is None:
            self.ask()
            self._read = {row.rank: row.turn for row in self._asked()} if self._asked is not None else {}
        return self._read
