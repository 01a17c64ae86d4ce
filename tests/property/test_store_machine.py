"""The job store answers and stands as the oracle of the protocol says, whatever is called in whatever order."""

import os
from collections import Counter

import pytest

from manager_service.domain.attempts import Loss, Stop
from manager_service.domain.fleet import SessionState, WorkerDirective
from manager_service.domain.leases import LeaseDirective, ReportStatus
from manager_service.domain.states import ChildJobState, Outcome, ParentJobState, WaitReason
from tests.property.driving import LIVES_PER_SEED, NewUrl, drive

# OVERHAUL_PROPERTY_SEEDS=500 looks further; OVERHAUL_PROPERTY_SHRINK=1 makes a disagreement small.
SEEDS = int(os.environ.get("OVERHAUL_PROPERTY_SEEDS", "12"))
# Rare things are looked for with so many seeds more before the gate closes.
MORE_SEEDS = 12
SHRINK = bool(os.environ.get("OVERHAUL_PROPERTY_SHRINK"))

VERBS = {
    "create_parent_job": ("RequestIdReusedError",),
    "requested_parent_job": ("RequestIdReusedError",),
    "cancel_parent_job": ("ParentJobNotFoundError", "WrongStateError"),
    "pause_parent_job": ("ParentJobNotFoundError", "WrongStateError"),
    "resume_parent_job": ("ParentJobNotFoundError", "WrongStateError"),
    "retry_parent_job": ("ParentJobNotFoundError", "WrongStateError"),
    "delete_parent_job": ("ParentJobNotFoundError", "WrongStateError"),
    "parent_job": ("ParentJobNotFoundError",),
    "child_jobs": ("ParentJobNotFoundError",),
    "events": ("ParentJobNotFoundError",),
    "child_job": ("ChildJobNotFoundError",),
    "logs": ("ChildJobNotFoundError",),
    "register": ("SessionSupersededError", "TargetIdentityMismatchError"),
    "acquire": ("SessionUnknownError", "SessionSupersededError"),
    "heartbeat": ("SessionUnknownError",),
    "report": ("SessionUnknownError",),
    "append_logs": ("SessionUnknownError", "LogGapError"),
    "deregister": (),
    "drain_worker": ("WorkerNotFoundError",),
    "pause_target": ("TargetUnknownError",),
    "forget_target": ("TargetUnknownError", "TargetInUseError"),
    "mark_alive": (),
    "expire_leases": (),
    "sweep": (),
    "fail_overdue": (),
    "release_due": (),
    "trim_events": (),
    "prune": (),
    "prune_sessions": (),
}
ANSWERS = [
    *(f"report: {status}" for status in ReportStatus),
    *(f"lease: {directive}" for directive in LeaseDirective),
    *(f"worker: {directive}" for directive in WorkerDirective),
    *(f"outcome: {outcome}" for outcome in Outcome),
    *(f"loss: {loss}" for loss in Loss),
    *(f"stop: {stop}" for stop in Stop),
    *(f"child: {state}" for state in ChildJobState),
    *(f"parent: {state}" for state in ParentJobState if state is not ParentJobState.PLANNING),
    *(f"wait: {reason}" for reason in WaitReason),
    *(f"session: {state}" for state in SessionState if state is not SessionState.SUPERSEDED),
    "a lower poll",
    "a repeated poll",
    "an older heartbeat",
    "logs: lost",
    "outage",
    "overdue",
    "pruned",
    "released",
    "sessions pruned",
]


REFUSALS = [f"{verb}: {refusal}" for verb, refusals in VERBS.items() for refusal in refusals]


@pytest.fixture(scope="module")
def seen(new_url: NewUrl) -> Counter[str]:
    """Drive a store of each kind beside the oracle; a disagreement is an error here, with its steps."""
    met = drive(new_url, seeds=range(SEEDS), shrink=SHRINK)
    for seed in range(SEEDS, SEEDS + MORE_SEEDS):
        if all(met[name] for name in (*VERBS, *REFUSALS, *ANSWERS)):
            break
        met += drive(new_url, seeds=range(seed, seed + 1), shrink=SHRINK)
    return met


@pytest.mark.timeout(600)
def test_the_store_and_the_oracle_agree_whatever_is_called(seen: Counter[str]) -> None:
    assert seen["grant"] > SEEDS * LIVES_PER_SEED


@pytest.mark.timeout(600)
def test_every_verb_succeeded_and_every_refusal_was_seen(seen: Counter[str]) -> None:
    assert [name for name in (*VERBS, *REFUSALS) if not seen[name]] == []


@pytest.mark.timeout(600)
def test_every_answer_and_every_way_to_end_was_seen(seen: Counter[str]) -> None:
    assert [answer for answer in ANSWERS if not seen[answer]] == []
