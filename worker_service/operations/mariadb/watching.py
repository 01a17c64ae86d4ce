import threading
from types import TracebackType
from typing import Self

from worker_service.operations.mariadb.connection import Connection, ServerError
from worker_service.operations.mariadb.session import Session
from worker_service.operations.mariadb.stages import Stage, Stages
from worker_service.operations.mariadb.waiting import INTERVAL

_MARIADB = "SELECT STATE, STAGE, MAX_STAGE, PROGRESS FROM information_schema.PROCESSLIST WHERE ID = %s"
_MYSQL = "SELECT STATE, 0, 0, 0 FROM information_schema.PROCESSLIST WHERE ID = %s"
_WHOLE = 100
_NOT_TOLD = "the server does not tell how far it is"

_LAST_LOOK = 1.0
"""Seconds that the end of an operation waits for a look that is under way; what it finds is not told any more."""


class Watch:
    """Tells how far the statement of one table is and who waits for locks, while a block runs it.

    It asks over a connection of its own.

    The server tells percentages for MyISAM and Aria, and the pages of InnoDB where it keeps books of stages.
    Otherwise it tells nothing of a table, and nothing is made up: of many tables their number is told, of a single
    one that it is not known. A statement that ends within a second is not asked for.

    Args:
        session: what runs the statement.
        table: the table it is done to.
        done: how many tables came before it.
        total: how many tables there are.
    """

    def __init__(self, session: Session, *, table: str, done: int, total: int) -> None:
        self._session = session
        self._table = table
        self._done = done
        self._total = total
        self._told: dict[str, int] = {}
        self._stages = Stages()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self._count(self._session.operation.name)
        self._session.waits.begin()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(_LAST_LOOK)

    def _watch(self) -> None:
        if self._ended.wait(INTERVAL):
            return
        try:
            with self._session.look() as connection:
                while not self._ended.is_set():
                    self._ask(connection)
                    self._ended.wait(INTERVAL)
        except ServerError as error:
            self._session.waits.unknown(f"How far it is cannot be read, nor who waits: {error}.")

    def _ask(self, connection: Connection) -> None:
        question = _MARIADB if self._session.server.is_mariadb else _MYSQL
        rows = connection.rows(question, self._session.connection.number)
        if not rows or self._ended.is_set():
            return
        [(state, stage, stages, share)] = rows
        self._session.waiters.look(connection, self._table, str(state or ""))
        if self._ended.is_set():
            return
        if str(state or "").lower().startswith("waiting"):
            # Also within a stage: a full disk is waited for, for as long as it takes.
            phase = f"{self._session.operation.name}: {self._table} is {str(state).lower()}"
            self._count(phase)
        elif int(stages or 0):
            phase = f"{self._table}, stage {stage} of {stages}"
            self._session.progress(phase, self._most(phase, min(int(share), _WHOLE)), _WHOLE, "%")
        else:
            self._tell_stage(self._stages.look(connection, self._session.connection.number))

    def _tell_stage(self, stage: Stage | None) -> None:
        operation = self._session.operation.name
        if stage is not None:
            # A long phase is cut at its end, so the table's name comes last.
            phase = f"{operation}, {stage.name}: {self._table}"
            self._session.progress(phase, self._most(phase, stage.done), stage.total, "pages")
        elif self._total == 1:
            self._session.progress(f"{operation}: {_NOT_TOLD}")

    def _count(self, phase: str) -> None:
        """Tell a phase with the number of tables; of a single one that would only be an invented 0 %."""
        if self._total > 1:
            self._session.progress(phase, self._done, self._total, "tables")
        else:
            self._session.progress(phase)

    def _most(self, phase: str, done: int) -> int:
        known = self._told[phase] = max(self._told.get(phase, 0), done)
        return known
