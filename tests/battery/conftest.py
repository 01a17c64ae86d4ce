from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.battery.deployment import Deployment
from tests.battery.server_logs import MARIADB_LOGGED, POSTGRES_LOGGED
from tests.battery.shops import MariadbShop, PostgresShop
from tests.mariadb import MariadbServer
from tests.postgres import PostgresServer


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    """Give a folder, and end at the end of the test what was started in it."""
    with ExitStack() as stack:
        yield Deployment(tmp_path, stack)


@pytest.fixture(scope="session")
def servers() -> Iterator[tuple[PostgresServer, MariadbServer]]:
    """Lend servers that write down what runs in them, and that a test may restart."""
    with PostgresServer(settings=POSTGRES_LOGGED) as postgres, MariadbServer(MARIADB_LOGGED) as mariadb:
        yield postgres, mariadb


@pytest.fixture
def shops(servers: tuple[PostgresServer, MariadbServer]) -> tuple[PostgresShop, MariadbShop]:
    """Make a database in each."""
    postgres, mariadb = servers
    return PostgresShop.made(postgres), MariadbShop.made(mariadb)
