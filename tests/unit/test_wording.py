"""Numbers as people read them, whatever the engine."""

import pytest

from worker_service.operations.wording import disk_need


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (0, ""),
        (512, "needs about 512 bytes of disk meanwhile"),
        (12_345_678, "needs about 12.3 MB of disk meanwhile"),
    ],
)
def test_the_disk_that_is_needed_is_told_where_any_is(number: float, told: str) -> None:
    assert disk_need(number) == told
