"""What the numbers of an inspection say of an object: the measures that thresholds are held against."""

from collections.abc import Mapping, Sequence

from worker_service.operations.postgresql.bloat import Spare
from worker_service.operations.postgresql.catalog import Table
from worker_service.operations.postgresql.indexes import Index
from worker_service.operations.postgresql.inventory import Inventory

Numbers = dict[str, float]


SOMETIMES_MEASURED = (
    *("vacuum_age_seconds", "analyze_age_seconds", "all_visible_ratio"),
    *("bloat_bytes", "bloat_ratio", "bloat_estimated"),
    *("index_bloat_bytes", "index_bloat_ratio", "index_bloat_estimated"),
)
"""The names by which an object may be measured, even if none is just now."""


def of_table(inventory: Inventory, table: Table) -> Numbers:
    """Measure a table; of a partitioned one its partitions are what is large, and what has rows."""
    parts = inventory.parts(table) if table.is_parent else [table]
    numbers = _sums(inventory, parts) | _analyzed(inventory, [table])
    return numbers if table.is_parent else numbers | _vacuumed(inventory, [table])


def of_index(inventory: Inventory, index: Index) -> Numbers:
    """Measure an index."""
    table = inventory.details.get(inventory.table_of(index))
    spare = inventory.bloat.indexes.get(index.oid)
    return {
        "size_bytes": float(inventory.index_bytes[index.oid]),
        **({"table_bytes": float(table.table_bytes)} if table else {}),
        "scans": float(inventory.index_scans[index.oid]),
        "valid": float(index.valid),
        **(spare.measures() if spare else {}),
    }


def of_database(inventory: Inventory, file_bytes: float | None) -> Numbers:
    """Measure the whole database: sums, ratios of sums, and the oldest; the system's own count by their size."""
    own = [table for table in inventory.tables if not table.is_system]
    plain = [table for table in own if not table.is_parent]
    sizes = _sums(inventory, [table for table in inventory.tables if not table.is_parent])
    kept = ("size_bytes", "table_bytes", "index_bytes", "size_estimated")
    xid_age, mxid_age = inventory.ages
    return {
        **_sums(inventory, plain),
        **{name: sizes[name] for name in kept},
        **({} if file_bytes is None else {"size_bytes": file_bytes}),
        **_analyzed(inventory, own),
        **_vacuumed(inventory, plain),
        **_ages(inventory, xid_age, mxid_age),
    }


def _sums(inventory: Inventory, tables: Sequence[Table]) -> Numbers:
    details = [inventory.details[table.oid] for table in tables]
    table_bytes = sum(one.table_bytes for one in details)
    index_bytes = sum(inventory.bytes_of_indexes(table) for table in tables)
    live, dead = sum(table.live_rows for table in tables), sum(table.dead_rows for table in tables)
    modified = sum(table.modified_rows for table in tables)
    pages, visible = sum(table.pages for table in tables), sum(table.all_visible for table in tables)
    return {
        "size_bytes": float(table_bytes + index_bytes),
        "size_estimated": float(any(one.estimated for one in details)),
        "table_bytes": float(table_bytes),
        "index_bytes": float(index_bytes),
        "pages": float(pages),
        **({"all_visible_ratio": min(1.0, visible / pages)} if pages else {}),
        "live_rows": float(live),
        "dead_rows": float(dead),
        "dead_ratio": dead / max(1, live + dead),
        "modified_rows": float(modified),
        "modified_ratio": modified / max(1, live),
        "inserted_rows": float(sum(one.inserted_rows for one in details)),
        **_bloat(inventory, tables),
    }


def _bloat(inventory: Inventory, tables: Sequence[Table]) -> Numbers:
    """Tell how much larger tables and their indexes are than what is in them; nothing where it is not known."""
    own = Spare.of(spare for table in tables if (spare := inventory.spare_of(table)))
    of_indexes = Spare.of(spare for table in tables if (spare := inventory.spare_of_indexes(table)))
    return {**(own.measures() if own else {}), **(of_indexes.measures("index_") if of_indexes else {})}


def _vacuumed(inventory: Inventory, tables: Sequence[Table]) -> Numbers:
    ages = [inventory.details[table.oid].vacuum_age for table in tables]
    return {
        **_since("vacuum_age_seconds", "never_vacuumed", ages),
        **_ages(
            inventory,
            max((table.age for table in tables), default=0),
            max((table.mxid_age for table in tables), default=0),
        ),
    }


def _ages(inventory: Inventory, xid_age: int, mxid_age: int) -> Numbers:
    freeze_age, multixact_age = inventory.limits
    return {
        "xid_age": float(xid_age),
        "xid_age_ratio": xid_age / freeze_age,
        "mxid_age": float(mxid_age),
        "mxid_age_ratio": mxid_age / multixact_age,
    }


def _analyzed(inventory: Inventory, tables: Sequence[Table]) -> Numbers:
    return _since(
        "analyze_age_seconds", "never_analyzed", [inventory.details[one.oid].analyze_age for one in tables]
    )


def _since(age: str, never: str, ages: Sequence[float | None]) -> Numbers:
    told: Mapping[str, float] = (
        {age: max(0.0, *known)} if (known := [one for one in ages if one is not None]) else {}
    )
    return {never: float(len(ages) - len(known)), **told}
