"""How far InnoDB is with a rebuild, as the server's books of stages tell where they are kept."""

from dataclasses import dataclass

from worker_service.operations.mariadb.connection import Connection, ServerError
from worker_service.operations.mariadb.waiting import tells

_PREFIX = "stage/innodb/alter table "
_KEPT = """
SELECT COUNT(*) FROM performance_schema.setup_consumers WHERE NAME = 'events_stages_current' AND ENABLED = 'YES'
"""
_CURRENT = f"""
SELECT e.EVENT_NAME, e.WORK_COMPLETED, e.WORK_ESTIMATED
FROM performance_schema.events_stages_current AS e
JOIN performance_schema.threads AS t ON t.THREAD_ID = e.THREAD_ID AND t.PROCESSLIST_ID = %s
WHERE e.EVENT_NAME LIKE '{_PREFIX}%%' AND e.END_EVENT_ID IS NULL
"""  # noqa: S608 - a constant


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stage of a rebuild, and the pages that are done; ``total`` is ``None`` where the estimate is overtaken.

    The pages are those of all stages so far, and the total that of all stages.
    """

    name: str
    done: int
    total: int | None


class Stages:
    """Looks up the stage of a connection's statement; whether the server keeps books of them is found out once."""

    def __init__(self) -> None:
        self._kept: bool | None = None

    def look(self, connection: Connection, number: int) -> Stage | None:
        """Return the stage of the statement of connection ``number``; ``None`` where the server tells of none.

        Raises:
            ServerError: the connection broke.
        """
        if self._kept is None:
            self._kept = tells(connection, _KEPT)
        if not self._kept:
            return None
        try:
            rows = connection.rows(_CURRENT, number)
        except ServerError as error:
            if not error.is_answer:
                raise
            self._kept = False
            return None
        return _stage(str(rows[0][0]), int(rows[0][1] or 0), int(rows[0][2] or 0)) if rows else None


def _stage(name: str, done: int, estimated: int) -> Stage:
    # Of a table without statistics the estimate only follows what is done.
    total = estimated if estimated > done else None
    return Stage(name=name.removeprefix(_PREFIX).strip("()"), done=done, total=total)
