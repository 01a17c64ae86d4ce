"""A database of each kind with something to maintain, behind passwords, and readings of them past Overhaul."""

import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.integration.operations.databases import bloated_database
from tests.integration.operations.postgres_ground import change, file_of, until, value
from tests.lodgings import HOST
from tests.mariadb import MariadbServer
from tests.postgres import PostgresServer

KEEPER = "shopkeeper"
DEAD = "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'orders'"
_CRM = "crm"
_SPACE = "SELECT SPACE FROM information_schema.INNODB_SYS_TABLES WHERE NAME = %s"
_GRANTS = (
    "SELECT, INSERT, ALTER, CREATE ON crm.*",
    "PROCESS ON *.*",
    "SELECT ON mysql.innodb_table_stats",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """What the databases are like: the numbers of the files that a rebuild makes anew, dead rows, and a size."""

    index_file: int
    dead_rows: int
    space: int
    file_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreeDatabases:
    """``shop`` in PostgreSQL, ``crm`` in MariaDB and ``app.db``; the role has to give passwords."""

    postgres: PostgresServer
    mariadb: MariadbServer
    admin_url: str
    file: Path
    passwords: dict[str, str] = field(
        default_factory=lambda: {name: f"pw-{secrets.token_hex(8)}" for name in ("PGPASSWORD", "MYSQL_PWD")}
    )

    @classmethod
    def made(cls, postgres: PostgresServer, mariadb: MariadbServer, folder: Path) -> Self:
        """Make them, each with rows that were deleted."""
        file = bloated_database(folder / "app.db")
        one = cls(postgres=postgres, mariadb=mariadb, admin_url=postgres.create_database(), file=file)
        one._make_shop()
        one._make_crm()
        return one

    def drop(self) -> None:
        """Remove what is in the servers."""
        self.postgres.drop_database(self.admin_url)
        change(self.postgres.url(), f"DROP ROLE {KEEPER}")
        self.mariadb.drop_database(_CRM)
        self.mariadb.run(f"DROP USER '{KEEPER}'@'{HOST}'")

    @property
    def shop_url(self) -> str:
        """Return the URL of the database in PostgreSQL, without the password."""
        return self.admin_url.replace("postgres@", f"{KEEPER}@")

    @property
    def crm_url(self) -> str:
        """Return the URL of the database in MariaDB, without the password."""
        return f"mariadb://{KEEPER}@{HOST}:{self.mariadb.port}/{_CRM}"

    def environment(self, *passwords: str) -> dict[str, str]:
        """Return an environment that tells these passwords, and neither another nor any setting."""
        foreign = ("OVERHAUL_", "PG", "MYSQL")
        own = {name: text for name, text in os.environ.items() if not name.startswith(foreign)}
        return own | {name: self.passwords[name] for name in passwords}

    def given(self, url: str, variable: str) -> str:
        """Return a URL with the password of the variable in it."""
        return url.replace(f"{KEEPER}@", f"{KEEPER}:{self.passwords[variable]}@")

    def read(self) -> Readings:
        """Read what they are like from the catalogues and the file system."""
        return Readings(
            index_file=file_of(self.admin_url, "orders_pkey"),
            dead_rows=value(self.admin_url, DEAD),
            space=self._space(),
            file_bytes=self.file.stat().st_size,
        )

    def leaks(self, *texts: str | bytes) -> list[str]:
        """Return whose passwords stand in one of the texts."""
        every = [text if isinstance(text, bytes) else text.encode() for text in texts]
        return [name for name, secret in self.passwords.items() if any(secret.encode() in text for text in every)]

    def _make_shop(self) -> None:
        change(
            self.admin_url,
            f"CREATE ROLE {KEEPER} LOGIN PASSWORD '{self.passwords['PGPASSWORD']}'",
            f"GRANT CREATE ON SCHEMA public TO {KEEPER}",
            f"SET ROLE {KEEPER}",
            "CREATE TABLE orders (id int PRIMARY KEY) WITH (autovacuum_enabled = off)",
            "CREATE TABLE customers (id int PRIMARY KEY) WITH (autovacuum_enabled = off)",
            "INSERT INTO orders SELECT generate_series(1, 1000)",
            "INSERT INTO customers SELECT generate_series(1, 10)",
            "DELETE FROM orders WHERE id % 2 = 0",
        )
        self.postgres.ask_for_password(KEEPER)
        until(lambda: value(self.admin_url, DEAD) == 500)

    def _make_crm(self) -> None:
        self.mariadb.create_database(_CRM)
        self.mariadb.run(
            "CREATE TABLE contact (id INT PRIMARY KEY, text VARCHAR(200))",
            "INSERT INTO contact SELECT seq, REPEAT('x', 200) FROM seq_1_to_4000",
            "DELETE FROM contact WHERE id % 8 <> 0",
            f"CREATE USER '{KEEPER}'@'{HOST}' IDENTIFIED BY '{self.passwords['MYSQL_PWD']}'",
            *(f"GRANT {grant} TO '{KEEPER}'@'{HOST}'" for grant in _GRANTS),
            database=_CRM,
        )

    def _space(self) -> int:
        with self.mariadb.connect() as connection, connection.cursor() as cursor:
            cursor.execute(_SPACE, (f"{_CRM}/contact",))
            row: Any = cursor.fetchone()
            return int(row[0])
