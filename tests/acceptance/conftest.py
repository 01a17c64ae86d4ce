"""What the tests of a user's ways share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.three_databases import ThreeDatabases
from tests.mariadb import MariadbServer
from tests.postgres import PostgresServer


@pytest.fixture
def three(postgres: PostgresServer, mariadb: MariadbServer, tmp_path: Path) -> Iterator[ThreeDatabases]:
    """Lend a database of each kind that is worth its maintenance."""
    made = ThreeDatabases.made(postgres, mariadb, tmp_path)
    yield made
    made.drop()
