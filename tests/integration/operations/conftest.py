"""What the tests of the servers' engines share."""

from collections.abc import Iterator

import pytest

from tests.integration.operations.mariadb_databases import Database
from tests.mariadb import MariadbServer


@pytest.fixture
def database(mariadb: MariadbServer) -> Iterator[Database]:
    """Lend an empty database of MariaDB that no other test sees."""
    name = mariadb.create_database()
    yield Database(server=mariadb, name=name)
    mariadb.drop_database(name)
