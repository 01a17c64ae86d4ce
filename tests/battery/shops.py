"""A database of a PostgreSQL and one of a MariaDB, workers on both, and an eye that is not the engines'."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import psycopg

from overhaul.v1 import job_pb2 as job
from overhaul.v1 import job_service_pb2 as jobs
from overhaul.v1 import job_service_pb2_grpc as jobs_grpc
from tests.battery.deployment import Deployment
from tests.mariadb import MariadbServer, Row, quoted
from tests.postgres import PostgresServer
from tests.services import Service
from worker_service.operations.mariadb.target_lock import place_names

TABLES = ("book", "note", "shelf", 'Od d:p "%s` ü')
_ROWS = 4_000
# Its statements take no time otherwise, and would never meet.
_MANY_ROWS = 15_000
_SLOTS = 3


def _defined(name: str) -> tuple[str, ...]:
    table, index = identifier(name), identifier(f"{name}_word")
    return (
        f"CREATE TABLE {table} (id int PRIMARY KEY, word text NOT NULL, number int NOT NULL)",
        f"CREATE INDEX {index} ON {table} (word)",
        f"INSERT INTO {table} SELECT i, repeat(md5(i::text), 3), i % 97 FROM generate_series(1, {_ROWS}) AS i",
        f"DELETE FROM {table} WHERE number < 20",
    )


def identifier(name: str) -> str:
    """Quote a name for PostgreSQL, apart from the engine's own way."""
    return '"' + name.replace('"', '""') + '"'


_PARTITIONED = (
    "ALTER TABLE shelf CLUSTER ON shelf_word",
    "CREATE TABLE sale (id int NOT NULL, day int NOT NULL, word text) PARTITION BY LIST (day)",
    *(f"CREATE TABLE sale_{day} PARTITION OF sale FOR VALUES IN ({day})" for day in (1, 2)),
    "CREATE INDEX sale_id ON sale (id)",
    f"INSERT INTO sale SELECT i, 1 + i % 2, repeat(md5(i::text), 3) FROM generate_series(1, {_ROWS}) AS i",
)
_OWNERS = """
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), n.nspname, c.relname,
       ARRAY(SELECT p.relid::regclass::text FROM pg_partition_tree(coalesce(o.oid, i.indrelid, c.oid)) AS p
             UNION SELECT coalesce(o.oid, i.indrelid, c.oid)::regclass::text)
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace LEFT JOIN pg_index AS i ON i.indexrelid = c.oid
LEFT JOIN pg_class AS o ON o.reltoastrelid = coalesce(i.indrelid, c.oid) AND o.reltoastrelid <> 0
WHERE c.relkind IN ('r', 'm', 'p', 'i', 'I', 't')
"""
_FILES = """
SELECT c.relname, pg_relation_filenode(c.oid) FROM pg_class AS c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'i')
"""
SESSIONS = "SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'overhaul%'"
_LEFT = {
    "indexes": "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid",
    "names": r"SELECT relname FROM pg_class WHERE relname ~ '_cc(new|old)'",
    "locks": "SELECT pid FROM pg_locks WHERE locktype = 'advisory'",
    "sessions": SESSIONS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresShop:
    """A database of a PostgreSQL."""

    server: PostgresServer
    url: str

    @classmethod
    def made(cls, server: PostgresServer) -> "PostgresShop":
        shop = cls(server=server, url=server.create_database())
        with psycopg.connect(shop.url, autocommit=True) as connection:
            for statement in (*chain.from_iterable(map(_defined, TABLES)), *_PARTITIONED):
                connection.execute(statement.encode())
        return shop

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    def log(self) -> list[str]:
        """Return what the server has said of this database, and of its own end and beginning."""
        lines = self.server.log.splitlines()
        return [line for line in lines if f"|{self.name}|" in line or "|LOG:  starting PostgreSQL" in line]

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            return connection.execute(query.encode()).fetchall()

    def content(self) -> dict[str, str]:
        """Hash every row of every table, in order."""
        digest = "SELECT md5(string_agg(md5(t::text), '' ORDER BY id)) FROM"
        return {name: self.rows(f"{digest} {identifier(name)} AS t")[0][0] for name in (*TABLES, "sale")}

    def tables_of(self) -> dict[str, frozenset[str]]:
        """Return by its quoted name whose tables an object is, or which it is made of."""
        return {
            f"{identifier(schema)}.{identifier(name)}": frozenset(tables)
            for _, schema, name, tables in self.rows(_OWNERS)
        }

    def files(self) -> dict[str, int]:
        """Return the number of the file of each table and index."""
        return dict(self.rows(_FILES))

    def counted(self) -> dict[str, dict[str, int]]:
        """Return by its name how often each table was vacuumed and analysed, as the server counts."""
        query = "SELECT relid::regclass, vacuum_count, analyze_count FROM pg_stat_user_tables"
        return {
            f"public.{name}": {"vacuum": vacuums, "analyze": analyzes}
            for name, vacuums, analyzes in self.rows(query)
        }

    def left(self) -> dict[str, list[Any]]:
        """Return what maintenance must not leave behind: invalid indexes, locks, sessions."""
        found = {what: [row[0] for row in self.rows(query)] for what, query in _LEFT.items()}
        return {what: names for what, names in found.items() if names}

    def busy(self) -> bool:
        """Tell whether a statement of maintenance runs."""
        running = (
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND application_name LIKE 'overhaul:%' "
            r"AND query ~ '^(VACUUM|ANALYZE|REINDEX|CLUSTER)'"
        )
        return bool(self.rows(running)[0][0])


@dataclass(frozen=True, slots=True, kw_only=True)
class MariadbShop:
    """A database of a MariaDB."""

    server: MariadbServer
    name: str

    @classmethod
    def made(cls, server: MariadbServer) -> "MariadbShop":
        shop = cls(server=server, name=server.create_database())
        for name in TABLES:
            shop.run(
                f"CREATE TABLE {quoted(name)} (id INT PRIMARY KEY, word VARCHAR(200), number INT, KEY (word))",
                f"INSERT INTO {quoted(name)} SELECT seq, REPEAT(MD5(seq), 3), seq % 97 FROM seq_1_to_{_MANY_ROWS}",
                f"DELETE FROM {quoted(name)} WHERE number < 20",
            )
        return shop

    @property
    def url(self) -> str:
        return self.server.url(self.name)

    def run(self, *statements: str) -> list[Row]:
        return self.server.run(*statements, database=self.name)

    def content(self) -> dict[str, str]:
        """Hash every row of every table, in order, without the server's own checksum."""
        digest = (
            "SELECT SHA2(GROUP_CONCAT(MD5(CONCAT_WS('|', id, word, number)) ORDER BY id SEPARATOR ''), 256) FROM"
        )
        return {
            name: str(self.run("SET group_concat_max_len = 10000000", f"{digest} {quoted(name)}")[0][0])
            for name in TABLES
        }

    def files(self) -> dict[str, int]:
        """Return the number of the file of each table."""
        query = f"SELECT NAME, SPACE FROM information_schema.INNODB_SYS_TABLES WHERE NAME LIKE '{self.name}/%'"
        return {str(name).rpartition("/")[2]: int(space) for name, space in self.server.run(query)}

    def left(self) -> dict[str, list[Any]]:
        """Return what maintenance must not leave behind: half-made tables, locks, connections, damage."""
        places = [row[0] for name in place_names(self.name) for row in self.run(f"SELECT IS_USED_LOCK('{name}')")]
        checked = [
            row for name in TABLES for row in self.run(f"CHECK TABLE {quoted(name)} EXTENDED") if row[3] != "OK"
        ]
        working = "SELECT INFO FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID() AND DB = DATABASE()"
        found = {
            "files": [path.name for path in self.server.data.rglob("#sql*")],
            "locks": [holder for holder in places if holder is not None],
            "connections": [row[0] for row in self.run(working)],
            "damage": checked,
        }
        return {what: names for what, names in found.items() if names}

    def busy(self) -> bool:
        """Tell whether a statement of maintenance runs."""
        running = (
            "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO REGEXP '^/[*] overhaul:.*TABLE `'"
        )
        return bool(self.server.run(running)[0][0])


def hire(deployment: Deployment, address: str, name: str, urls: Mapping[str, tuple[str, str | None]]) -> Service:
    """Start a worker that serves the URLs by their names; one with an identity is stated to be that database."""
    config = deployment.folder / f"{name}.toml"
    config.write_text("".join(_target(target, *stated) for target, stated in urls.items()))
    config.chmod(0o600)
    command = ["--manager", address, "--name", name, "--config", str(config), "--slots", str(_SLOTS)]
    command += ["--max-parallel", "4", "--drain-grace", "10", "--log-format", "json"]
    return deployment.stack.enter_context(Service("worker_service", command))


def _target(name: str, url: str, identity: str | None) -> str:
    stated = f'identity = "{identity}"\n' if identity else ""
    return f'[[targets]]\nname = "{name}"\nurl = "{url}"\n{stated}'


async def order(
    client: jobs_grpc.JobServiceStub,
    targets: Sequence[str],
    *operations: str,
    scope: job.Scope.ValueType = job.SCOPE_TABLE,
    include: Sequence[str] = ("public.*", "pg_toast.*", "test_*"),
) -> str:
    """Create a parent job that outlives any number of losses; an operation is written ``vacuum:full=true``."""
    request = jobs.CreateParentJobRequest(
        targets=targets,
        operations=[_operation(text) for text in operations],
        scope=scope,
        selection=job.Selection(include=[] if scope == job.SCOPE_DATABASE else include),
        allow_unknown_targets=True,
        retry_policy=job.RetryPolicy(max_losses=100, max_failures=100),
    )
    request.retry_policy.initial_backoff.FromMilliseconds(50)
    request.retry_policy.max_backoff.FromMilliseconds(500)
    return (await client.CreateParentJob(request)).parent_job.id


def _operation(text: str) -> job.OperationSpec:
    name, _, options = text.partition(":")
    pairs: Iterator[tuple[str, str]] = (
        (match[1], match[2]) for match in re.finditer(r"([a-z_]+)=([a-z0-9]+)", options)
    )
    return job.OperationSpec(name=name, options=dict(pairs))
