from collections.abc import Iterator
from pathlib import Path

import pytest

from overhaul.v1 import job_service_pb2 as jobs
from tests.hostile.wire import Wire
from tests.services import Service, address_of, start_manager

QUICK = ("--heartbeat-interval", "300ms", "--lease-duration", "2500ms", "--accept-within", "2500ms")


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Run a manager for the tests of a module, which has to be unharmed and without a defect after them."""
    store: Path = tmp_path_factory.mktemp("hostile") / "jobs.db"
    with start_manager(store, *QUICK, "--poll-window", "300ms", "--synchronous", "normal") as service:
        yield service
        assert service.process.poll() is None
        assert service.terminate() == 0
        defects = [line for line in service.lines if "Traceback" in line or '"call failed"' in line]
        assert not defects, defects[0]


@pytest.fixture
def wire(manager: Service) -> Iterator[Wire]:
    """Connect to the manager; after the test somebody else has to be served as before."""
    wire = Wire(address_of(manager))
    try:
        yield wire
    finally:
        wire.close()
    other = Wire(address_of(manager))
    try:
        assert other.say(jobs.ListParentJobsRequest(page_size=1)) is None
    finally:
        other.close()
