"""Many children are shown in sum, and what somebody has to look at by itself."""

from datetime import timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from manager_service.client.groups import MOST_SHOWN, gathered
from overhaul.v1 import job_pb2

COMPLETED, FAILED = job_pb2.CHILD_JOB_STATE_COMPLETED, job_pb2.CHILD_JOB_STATE_FAILED


def vacuumed(number: int, *, state: job_pb2.ChildJobState.ValueType = COMPLETED) -> job_pb2.ChildJob:
    return job_pb2.ChildJob(
        operation="vacuum",
        target="shop",
        object=f"public.t{number}",
        state=state,
        verdict=job_pb2.VERDICT_EFFECTIVE if state == COMPLETED else job_pb2.VERDICT_UNSPECIFIED,
        before={"dead_rows": 3},
        after={"dead_rows": 1, "tables_vacuumed": 1},
        start_time=Timestamp(seconds=100),
        end_time=Timestamp(seconds=102),
    )


class TestGathered:
    def test_few_are_shown_one_by_one(self) -> None:
        children = [vacuumed(number) for number in range(MOST_SHOWN)]

        assert gathered(children) == ((), children)

    def test_many_are_one_group_for_each_operation_on_a_target(self) -> None:
        children = [vacuumed(number) for number in range(MOST_SHOWN)]
        children.append(job_pb2.ChildJob(operation="analyze", target="shop", object="t", state=COMPLETED))
        children.append(job_pb2.ChildJob(operation="inspect", target="shop", state=COMPLETED))

        (vacuum, analyze), alone = gathered(children)

        assert (vacuum.operation, vacuum.target, len(vacuum.children)) == ("vacuum", "shop", MOST_SHOWN)
        assert (analyze.operation, analyze.result) == ("analyze", "1 completed")
        assert [child.operation for child in alone] == ["inspect"]

    def test_measures_and_times_are_added_up(self) -> None:
        (group,), _ = gathered([vacuumed(number) for number in range(MOST_SHOWN + 1)])

        sums = group.sums
        assert dict(sums.before) == {"dead_rows": 3 * (MOST_SHOWN + 1)}
        assert dict(sums.after) == {"dead_rows": MOST_SHOWN + 1, "tables_vacuumed": MOST_SHOWN + 1}
        assert group.time == timedelta(seconds=2 * (MOST_SHOWN + 1))
        assert group.result == f"{MOST_SHOWN + 1} completed: effective"

    def test_why_several_were_skipped_is_told_with_their_number(self) -> None:
        skipped = [vacuumed(number, state=job_pb2.CHILD_JOB_STATE_SKIPPED) for number in range(MOST_SHOWN + 1)]
        for number, child in enumerate(skipped):
            child.reason = "its extension is missing" if number > 2 else f"dead_rows is {number}"
        skipped[1].reason = skipped[0].reason

        (group,), _ = gathered([*skipped, vacuumed(100)])

        assert group.reasons == [("its extension is missing", MOST_SHOWN - 2), ("dead_rows is 0", 2)]

    def test_what_failed_is_in_the_group_and_shown_alone(self) -> None:
        children = [vacuumed(number) for number in range(MOST_SHOWN)]
        children += [vacuumed(100 + number, state=FAILED) for number in range(MOST_SHOWN + 5)]

        (group,), alone = gathered(children)

        assert group.result == f"{MOST_SHOWN + 5} failed, {MOST_SHOWN} completed: effective"
        assert len(alone) == MOST_SHOWN
        assert {child.state for child in alone} == {FAILED}

    def test_what_is_doubtful_is_shown_alone(self) -> None:
        children = [vacuumed(number) for number in range(MOST_SHOWN + 1)]
        children[3].verdict = job_pb2.VERDICT_UNKNOWN

        _, alone = gathered(children)

        assert alone == [children[3]]
