"""New stores of each kind, one for each life."""

import pytest

from tests.property.driving import NewUrl, sqlite_stores
from tests.stores import PostgresStores


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def new_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> NewUrl:
    if request.param == "sqlite":
        return sqlite_stores(tmp_path_factory.mktemp("stores"))
    stores: PostgresStores = request.getfixturevalue("postgres_stores")
    return stores.new_url
