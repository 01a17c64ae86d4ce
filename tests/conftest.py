"""What every test lives by: a skipped test is a failure, because what was not run was not shown."""

import os
from collections.abc import Iterator

import pytest

from tests.mariadb import MariadbServer
from tests.postgres import PostgresServer
from tests.stores import PostgresStores

# A server that runs as another user is forked, and gRPC's own doings in the fork of a process with open channels
# can crash it. What is forked here becomes another program at once.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Lend the session's server; a test makes a database of its own in it."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariadbServer]:
    """Lend the session's server; a test makes a database of its own in it."""
    with MariadbServer() as server:
        yield server


@pytest.fixture(scope="session")
def newest_postgres() -> Iterator[PostgresServer]:
    """Lend the session's server of the newest release."""
    with PostgresServer(packaged=True) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_stores(postgres: PostgresServer) -> PostgresStores:
    """Lend what makes job stores in the session's server."""
    return PostgresStores(postgres)


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """Lend an empty database that no other test sees."""
    url = postgres.create_database()
    yield url
    postgres.drop_database(url)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if exitstatus == pytest.ExitCode.OK and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.write_line(
            f"{len(skipped)} tests were skipped that should have run: that is a failure here", red=True
        )
