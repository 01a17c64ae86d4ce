"""What InnoDB's kept statistics tell of each table: how old they are, and how many pages its indexes use."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from worker_service.operations.mariadb.connection import Reader, ServerError

_TABLE = "SUBSTRING_INDEX(SUBSTRING_INDEX(table_name, '#P#', 1), '#p#', 1)"
_AGES = f"""
SELECT {_TABLE}, MAX(TIMESTAMPDIFF(SECOND, last_update, NOW()))
FROM mysql.innodb_table_stats WHERE database_name = DATABASE() GROUP BY 1
"""  # noqa: S608 - a constant
# The leaf pages are those in use, of long values too; the size has those that the indexes only hold.
_PAGES = f"""
SELECT {_TABLE}, SUM(IF(stat_name = 'n_leaf_pages', stat_value, 0)), SUM(IF(stat_name = 'size', stat_value, 0))
FROM mysql.innodb_index_stats
WHERE database_name = DATABASE() AND stat_name IN ('n_leaf_pages', 'size') GROUP BY 1
"""  # noqa: S608 - a constant


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What the statistics tell of one table.

    Attributes:
        age: seconds since the oldest of its partitions was analysed, by somebody or by the server itself; ``None``
            where nobody tells.
        never: whether it never was; ``None`` where nobody tells.
        used: the part of the pages of its indexes that is in use; 1 where nobody tells.
    """

    age: float | None = None
    never: bool | None = None
    used: float = 1.0


def read_statistics(reader: Reader) -> Mapping[str, Statistics] | None:
    """Read what is kept of the tables of the database, by name; ``None`` where the role may not."""
    try:
        ages = reader.rows(_AGES)
    except ServerError:
        return None
    found = {str(name): Statistics(age=float(age), never=False) for name, age in ages}
    for name, leaves, size in _read_pages(reader):
        if name in found and size:
            found[name] = replace(found[name], used=min(1.0, leaves / size))
    return found


def _read_pages(reader: Reader) -> list[tuple[str, float, float]]:
    try:
        return [(str(name), float(leaves), float(size)) for name, leaves, size in reader.rows(_PAGES)]
    except ServerError:
        return []  # a role may have been granted the one table and not the other
