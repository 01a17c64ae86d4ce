"""What nothing is done to, whatever is asked for, and why."""

from worker_service.domain.inspection import Selection
from worker_service.operations.postgresql.catalog import SYSTEM, Reader
from worker_service.operations.postgresql.names import Name

_REASONS = {
    "f": "it is a foreign table, whose rows are elsewhere",
    "r": "it is a temporary table of another session, which alone can maintain it",
    "v": "it is a view, which has no rows of its own",
}
_LEFT_ALONE = """
SELECT n.nspname, c.relname, c.relkind::text
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind = 'f' OR c.relkind = 'r' AND c.relpersistence = 't' OR c.relkind = 'v' AND c.relpersistence <> 't'
"""


def read_left_alone(read: Reader, selection: Selection) -> list[tuple[Name, str]]:
    """Read foreign tables, other sessions' temporary ones, and views, each with its reason.

    The system has more views than most databases have tables: they are told where a selection includes them, and
    not where everything is meant.
    """
    return [
        (Name(schema=schema, name=name), _REASONS[kind])
        for schema, name, kind in read(_LEFT_ALONE)
        if kind != "v" or schema not in SYSTEM or (selection.include and selection.takes(f"{schema}.{name}", name))
    ]
