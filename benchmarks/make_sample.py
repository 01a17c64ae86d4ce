"""Make a database that needs maintenance: deleted rows, several indexes, statistics from before the bulk came.

python benchmarks/make_sample.py PATH [--megabytes 50]
"""

import argparse
import sqlite3
import sys
import time
from pathlib import Path

SCHEMA = """
CREATE TABLE customers (
  id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE, name TEXT NOT NULL, city TEXT NOT NULL
);
CREATE TABLE orders (
  id INTEGER PRIMARY KEY, customer_id INTEGER NOT NULL REFERENCES customers (id),
  state TEXT NOT NULL, placed INTEGER NOT NULL, cents INTEGER NOT NULL, note TEXT NOT NULL
);
CREATE TABLE "audit log" (id INTEGER PRIMARY KEY, happened INTEGER NOT NULL, entry TEXT NOT NULL);
CREATE INDEX customers_by_lower_email ON customers (lower(email));
CREATE INDEX customers_by_city ON customers (city, name);
CREATE INDEX orders_by_customer ON orders (customer_id, placed);
CREATE INDEX orders_open ON orders (placed) WHERE state = 'open';
CREATE INDEX audit_by_time ON "audit log" (happened);
"""
CITIES = ("Aarhus", "Bergen", "Cádiz", "Dresden", "Évora", "Firenze", "Gdańsk")
STATES = ("open", "paid", "sent", "returned")

# One order with its rows around it is about this large on disk, indexes and statistics included.
BYTES_PER_ORDER = 515
ORDERS_PER_CUSTOMER = 5
FEW = 200

SAMPLE_ID = 0x0_0EA_0115
"""SQLite's application_id of a sample: only a file that has it is made anew."""


def make(path: Path, megabytes: int) -> None:
    orders = megabytes * 1_000_000 // BYTES_PER_ORDER
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(f"PRAGMA application_id = {SAMPLE_ID}")
        connection.executescript(SCHEMA)
        fill(connection, 0, FEW)
        connection.execute("ANALYZE")  # from here on it knows of a few hundred rows only
        fill(connection, FEW, max(orders, 2 * FEW))
        connection.execute("BEGIN")
        connection.execute("DELETE FROM orders WHERE state = 'returned' OR id < ?", (orders // 4,))
        connection.execute('DELETE FROM "audit log" WHERE id < ? OR id % 3 = 0', (orders // 2,))
        connection.execute("COMMIT")
    finally:
        connection.close()


def fill(connection: sqlite3.Connection, first: int, beyond: int) -> None:
    """Add the orders from `first` to `beyond`, and the customers and audit entries that belong to them."""
    customers = range(first // ORDERS_PER_CUSTOMER, beyond // ORDERS_PER_CUSTOMER)
    connection.execute("BEGIN")
    connection.executemany(
        "INSERT INTO customers VALUES (?, ?, ?, ?)",
        (
            (i, f"Customer.{i * 7919 % 1_000_003}.{i}@Example.org", f"Customer {i}", CITIES[i % 7])
            for i in customers
        ),
    )
    connection.executemany(
        "INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?)",
        (
            (
                i,
                i * 31 % (beyond // ORDERS_PER_CUSTOMER),
                STATES[i % 4],
                1_700_000_000 + i,
                i * 37 % 90_000,
                "n" * 180,
            )
            for i in range(first, beyond)
        ),
    )
    connection.executemany(
        'INSERT INTO "audit log" VALUES (?, ?, ?)',
        ((i, 1_700_000_000 + i * 7 % beyond, "e" * 200) for i in range(first, beyond)),
    )
    connection.execute("COMMIT")


def is_sample(path: Path) -> bool:
    with path.open("rb") as file:
        header = file.read(100)
    return header[:15] == b"SQLite format 3" and int.from_bytes(header[68:72]) == SAMPLE_ID


def main() -> int:
    parser = argparse.ArgumentParser(description="Make a SQLite database that needs maintenance.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--megabytes", type=int, default=50, help="about how large (default 50)")
    arguments = parser.parse_args()
    if arguments.path.exists():
        if not is_sample(arguments.path):
            print(f"{arguments.path} exists and is not a sample; name another path", file=sys.stderr)
            return 2
        arguments.path.unlink()
    started = time.monotonic()
    make(arguments.path, arguments.megabytes)
    size = arguments.path.stat().st_size / 1e6
    print(
        f"made a sample database, {arguments.path}: {size:.0f} MB with deleted rows, stale statistics"
        f" and 6 indexes, in {time.monotonic() - started:.1f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
