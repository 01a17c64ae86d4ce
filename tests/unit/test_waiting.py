from dataclasses import replace

import pytest

from manager_service.domain.states import WaitReason
from manager_service.domain.waiting import WaitFacts, wait_reason

NOW = 100
# Each fact that makes a child wait, with its reason, in the order in which they are told.
REASONS = [
    ({"parent_paused": True}, WaitReason.PARENT_PAUSED, ""),
    ({"ahead": "vacuum on a"}, WaitReason.PREDECESSOR, "vacuum on a"),
    ({"available_time": NOW + 1, "last_reason": "locked"}, WaitReason.AVAILABLE_TIME, "locked"),
    ({"target_paused": True}, WaitReason.TARGET_PAUSED, ""),
    ({"served": False}, WaitReason.NO_WORKER, ""),
    ({"holder": "vacuum on anna"}, WaitReason.TARGET_BUSY, "vacuum on anna"),
    ({"parent_full": True}, WaitReason.PARENT_LIMIT, ""),
    ({"slots_free": False}, WaitReason.SLOTS_FULL, ""),
    ({"held_back": "31 active sessions"}, WaitReason.THROTTLED, "31 active sessions"),
]


class TestWaitReason:
    @pytest.mark.parametrize("place", range(len(REASONS)))
    def test_the_first_that_applies_is_told(self, place: int) -> None:
        facts = WaitFacts()
        for given, _, _ in REASONS[place:]:
            facts = replace(facts, **given)  # type: ignore[arg-type]  # fields of any type

        assert wait_reason(facts, now=NOW) == REASONS[place][1:]

    def test_every_reason_has_its_place(self) -> None:
        assert [reason for _, reason, _ in REASONS] == list(WaitReason)

    def test_a_child_about_to_be_granted_waits_for_nothing(self) -> None:
        assert wait_reason(WaitFacts(available_time=NOW), now=NOW) == (None, "")
