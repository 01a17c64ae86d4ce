from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.manager_harness import BRISK, RunningManager, running, settings_on


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[RunningManager]:
    """Run a manager in this process, on a store of its own."""
    async with running(settings_on(tmp_path)) as running_manager:
        yield running_manager


@pytest.fixture
async def brisk(tmp_path: Path) -> AsyncIterator[RunningManager]:
    """Run a manager whose spans are short, for tests that wait for them to pass."""
    async with running(settings_on(tmp_path, timing=BRISK)) as running_manager:
        yield running_manager
