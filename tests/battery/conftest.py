from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.battery.deployment import Deployment


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    """Give a folder, and end at the end of the test what was started in it."""
    with ExitStack() as stack:
        yield Deployment(tmp_path, stack)
