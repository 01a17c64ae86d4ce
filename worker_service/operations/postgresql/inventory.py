"""What the server's catalogues say of all tables and indexes at once, in a number of queries that never grows."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from worker_service.domain.inspection import Selection
from worker_service.operations.postgresql.bloat import Bloat, Measurer, Spare, needed_bytes
from worker_service.operations.postgresql.catalog import (
    PARENT,
    PLAIN,
    VERSION_17,
    Reader,
    Table,
    read_tables,
)
from worker_service.operations.postgresql.details import Details, measured, read_details
from worker_service.operations.postgresql.indexes import Index, may_use_toast, read_indexes
from worker_service.operations.postgresql.left_alone import read_left_alone
from worker_service.operations.postgresql.names import Name
from worker_service.operations.postgresql.wording import quoted

_INDEX_SIZES = """
WITH locked AS ({locked})
SELECT c.oid, CASE WHEN l.relation IS NULL THEN pg_relation_size(c.oid) ELSE {estimate} END,
       pg_stat_get_numscans(c.oid)
FROM pg_class AS c LEFT JOIN locked AS l ON l.relation = c.oid
WHERE c.relkind = 'i' AND c.relpersistence <> 't'
"""
_SETTINGS = """
SELECT current_setting('block_size')::int, current_setting('autovacuum_freeze_max_age')::bigint,
       current_setting('autovacuum_multixact_freeze_max_age')::bigint,
       (SELECT age(datfrozenxid) FROM pg_database WHERE datname = current_database()),
       (SELECT mxid_age(datminmxid) FROM pg_database WHERE datname = current_database())
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """Every table and index of a database, as they were when they were looked at.

    Attributes:
        version: the server's version, as a number.
        tables: plain and partitioned tables and materialized views.
        details: more of each table, by its number.
        indexes: those of tables and of long values.
        index_bytes: how large each index is, by its number.
        index_scans: how often each index was used, by its number.
        left_alone: tables and views that nothing is done to, with the reason.
        limits: the ages, in transactions and in multixacts, at which autovacuum is forced upon a table.
        block_bytes: the size of a page.
        ages: the database's own, in transactions and in multixacts.
        toast: whether the role may use the schema of long values.
        owners: by the number of a table of long values, whose values these are.
        index_sums: how large all the indexes of a table are, by its number.
        leaves: the partitions with rows of each partitioned table, by its number.
        bloat: what tables and indexes would not need of their files, where it was measured or can be told.
        indexes_of: the numbers of a table's indexes, by its own.
        selection: which objects are meant; what is not is here too.
    """

    version: int
    tables: Sequence[Table]
    details: Mapping[int, Details]
    indexes: Sequence[Index]
    index_bytes: Mapping[int, int]
    index_scans: Mapping[int, int]
    left_alone: Sequence[tuple[Name, str]]
    limits: tuple[int, int]
    block_bytes: int
    ages: tuple[int, int]
    toast: bool
    owners: Mapping[int, int]
    index_sums: Mapping[int, int]
    leaves: Mapping[int, Sequence[Table]]
    bloat: Bloat
    indexes_of: Mapping[int, Sequence[int]]
    selection: Selection

    @classmethod
    def read(cls, read: Reader, version: int, measure: Measurer, selection: Selection) -> Self:
        """Read it all; nobody is waited for longer than the session's time-out for locks.

        Of the selection there is a copy, which a worker that watches what it is asked about does not hear of.
        """
        selection = Selection(include=selection.include, exclude=selection.exclude)
        tables = read_tables(read, version, kinds=(*PLAIN, PARENT))
        details = read_details(read, version)
        sizes = {row[0]: row for row in measured(read, _INDEX_SIZES)}
        block_bytes, freeze_age, multixact_age, *ages = read(_SETTINGS)[0]
        # What was made or dropped between two of the queries is left out.
        indexes = [index for index in read_indexes(read) if index.oid in sizes]
        known = [table for table in tables if table.oid in details]
        return cls(
            version=version,
            tables=known,
            details=details,
            indexes=indexes,
            index_bytes={oid: row[1] for oid, row in sizes.items()},
            index_scans={oid: row[2] for oid, row in sizes.items()},
            left_alone=read_left_alone(read, selection),
            limits=(freeze_age, multixact_age),
            block_bytes=block_bytes,
            ages=(ages[0], ages[1]),
            toast=may_use_toast(read),
            owners={one.toast: oid for oid, one in details.items() if one.toast},
            index_sums=_index_sums(indexes, sizes),
            leaves=_leaves(known, details),
            bloat=Bloat.read(read, measure, block_bytes),
            indexes_of=_indexes_of(indexes),
            selection=selection,
        )

    def takes(self, name: Name) -> bool:
        """Tell whether the selection means an object."""
        return self.selection.takes(name.shown, name.name)

    def left_catalogues(self) -> int:
        """Tell how many of the system's catalogues are meant and may not be maintained by the role."""
        return sum(one.is_system and not one.permitted and self.takes(one.name) for one in self.tables)

    def table_of(self, index: Index) -> int:
        """Return the number of the table that an index counts as."""
        return self.owners.get(index.table_oid, index.table_oid)

    def ancestors(self, table: int) -> list[int]:
        """Return the numbers of the partitioned tables that a table is part of."""
        return _ancestors(self.details, table)

    def parts(self, table: Table) -> Sequence[Table]:
        """Return the partitions of a partitioned table that have rows of their own."""
        return self.leaves.get(table.oid, ())

    def spare_of(self, table: Table) -> Spare | None:
        """Tell what a table would not need of its file: as measured, or by its live rows and their width."""
        if measured := self.bloat.tables.get(table.oid):
            return measured
        one = self.details[table.oid]
        if one.width is None:
            return None
        needed = needed_bytes(_rows(table), one.width, one.fill, self.block_bytes)
        return Spare(file_bytes=one.heap_bytes, spare_bytes=max(0.0, one.heap_bytes - needed), estimated=True)

    def spare_of_indexes(self, table: Table) -> Spare | None:
        """Tell what the indexes of a table would not need, those of which it is known."""
        known = self.bloat.indexes
        return Spare.of(known[index] for index in self.indexes_of.get(table.oid, ()) if index in known)

    def live_bytes(self, table: Table) -> float:
        """Tell how large a table and its indexes would be written anew: all that is there, but what is spare."""
        spare = [one for one in (self.spare_of(table), self.spare_of_indexes(table)) if one]
        there = self.details[table.oid].table_bytes + self.bytes_of_indexes(table)
        return max(0.0, there - sum(one.spare_bytes for one in spare))

    def bytes_of_indexes(self, table: Table) -> int:
        """Return how large the indexes of a table are."""
        known = self.details[table.oid].index_bytes
        return self.index_sums.get(table.oid, 0) if known is None else known

    def why_not(self, table: Table, *, by_owner: bool | None) -> str:
        """Tell which right is missing for work on a table, nothing when there is none.

        ``by_owner``: whether it is work that the owner of the database may not do on what others own; ``None``
        where it takes no right on the table.
        """
        one = self.details[table.oid]
        if not one.usable:
            return f"the role may not use its schema: GRANT USAGE ON SCHEMA {quoted(table.name.schema)}"
        if by_owner is None or (one.owned if by_owner else table.permitted):
            return ""
        if self.version >= VERSION_17:
            return f"the role may not maintain it: GRANT MAINTAIN ON {table.name}, or pg_maintain"
        return "the role may not maintain it: only its owner or a superuser may" + (
            "" if by_owner else ", or the database's owner"
        )


def _ancestors(details: Mapping[int, Details], table: int) -> list[int]:
    found: list[int] = []
    while (one := details.get(table)) and one.parent is not None:
        table = one.parent
        found.append(table)
    return found


def _leaves(tables: Iterable[Table], details: Mapping[int, Details]) -> Mapping[int, Sequence[Table]]:
    found: dict[int, list[Table]] = defaultdict(list)
    for table in tables:
        for ancestor in () if table.is_parent else _ancestors(details, table.oid):
            found[ancestor].append(table)
    return found


def _index_sums(indexes: Iterable[Index], sizes: Mapping[int, Sequence[int]]) -> Mapping[int, int]:
    found: dict[int, int] = defaultdict(int)
    for index in indexes:
        found[index.table_oid] += sizes[index.oid][1]
    return found


def _indexes_of(indexes: Iterable[Index]) -> Mapping[int, Sequence[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for index in indexes:
        found[index.table_oid].append(index.oid)
    return found


def _rows(table: Table) -> float:
    # After a crash of the server the counters begin anew, and the catalogue's number is the better one.
    counted = table.live_rows or table.dead_rows
    return float(table.live_rows) if counted else max(0.0, table.rows)
