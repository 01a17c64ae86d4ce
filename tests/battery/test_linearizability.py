"""The checker of histories refuses what must not be, and nothing else."""

from typing import Any

from tests.battery.linearizability import Answer, Call, Grant, Loss, Operation, Report, Rest, is_linearizable


def grant(lease: str, attempt: int = 1, *, session: str = "anna", poll: int = 1) -> Grant:
    return Grant(lease_id=lease, attempt=attempt, session_id=session, poll=poll)


def report(lease: str, attempt: int = 1, **fields: Any) -> Report:
    given = {"session_id": "anna", "report_id": "r", "outcome": "completed", "final": True, **fields}
    return Report(lease_id=lease, attempt=attempt, **given)


def answered(begin: float, end: float, operation: Operation, answer: Answer | None = None) -> Call:
    return Call(begin=begin, end=end, operation=operation, answer=answer)


def unanswered(begin: float, operation: Operation) -> Call:
    return Call(begin=begin, operation=operation)


def rest(*reports: Report) -> Call:
    return answered(100, 101, Rest(records=frozenset(one.record for one in reports)))


class TestGrants:
    def test_one_then_its_report_is_a_history(self) -> None:
        assert is_linearizable(
            [
                answered(0, 1, grant("a")),
                answered(2, 3, report("a"), Answer.RECORDED),
                rest(report("a")),
            ]
        )

    def test_a_doubled_one_is_refused(self) -> None:
        assert not is_linearizable([answered(0, 1, grant("a")), answered(0, 1, grant("b", session="berta"))])
        assert not is_linearizable([answered(0, 1, grant("a")), answered(2, 3, grant("b", 2, session="berta"))])

    def test_the_same_one_may_be_told_twice_to_one_poll_only(self) -> None:
        assert is_linearizable([answered(0, 1, grant("a")), answered(2, 3, grant("a"))])
        assert not is_linearizable([answered(0, 1, grant("a")), answered(2, 3, grant("a", poll=2))])

    def test_the_next_follows_a_loss_and_not_before_it_can_be_lost(self) -> None:
        grants = [answered(0, 1, grant("a")), answered(4, 5, grant("b", 2, session="berta"))]

        assert is_linearizable([*grants, unanswered(3, Loss(lease_id="a"))])
        assert not is_linearizable([*grants, unanswered(6, Loss(lease_id="a"))])

    def test_one_after_the_end_is_refused(self) -> None:
        ended = [answered(0, 1, grant("a")), answered(2, 3, report("a"), Answer.RECORDED)]

        assert not is_linearizable([*ended, answered(4, 5, grant("b", 2))])

    def test_an_attempt_that_is_skipped_is_refused_unless_its_grant_may_have_been_lost(self) -> None:
        second = [answered(4, 5, grant("b", 2))]

        assert not is_linearizable(second)
        assert is_linearizable([unanswered(0, grant("a")), unanswered(3, Loss(lease_id="a")), *second])


class TestReports:
    def test_a_stale_one_that_is_recorded_is_refused(self) -> None:
        taken_over = [
            answered(0, 1, grant("a")),
            unanswered(2, Loss(lease_id="a")),
            answered(3, 4, grant("b", 2, session="berta")),
        ]

        assert not is_linearizable([*taken_over, answered(5, 6, report("a"), Answer.RECORDED)])
        assert is_linearizable([*taken_over, answered(5, 6, report("a"), Answer.STALE)])

    def test_two_with_different_outcomes_are_not_both_recorded(self) -> None:
        granted = answered(0, 1, grant("a"))
        completed = report("a", report_id="r")
        failed = report("a", report_id="s", outcome="failed")

        for other in (Answer.RECORDED, Answer.ALREADY_RECORDED):
            calls = [answered(2, 4, completed, Answer.RECORDED), answered(2, 4, failed, other)]
            assert not is_linearizable([granted, *calls])
        assert is_linearizable(
            [granted, answered(2, 4, completed, Answer.STALE), answered(2, 4, failed, Answer.RECORDED)]
        )

    def test_that_of_another_session_is_not_recorded(self) -> None:
        granted = answered(0, 1, grant("a"))

        assert not is_linearizable([granted, answered(2, 3, report("a", session_id="eve"), Answer.RECORDED)])

    def test_one_is_not_stale_while_its_lease_lives(self) -> None:
        assert not is_linearizable([answered(0, 1, grant("a")), answered(2, 3, report("a"), Answer.STALE)])

    def test_one_without_an_answer_was_carried_out_or_not(self) -> None:
        calls = [answered(0, 1, grant("a")), unanswered(2, report("a"))]

        assert is_linearizable([*calls, answered(3, 4, report("a"), Answer.RECORDED)])
        assert is_linearizable([*calls, answered(3, 4, report("a"), Answer.ALREADY_RECORDED)])
        assert is_linearizable([*calls, rest(report("a"))])

    def test_a_repeat_is_not_recorded_before_the_first_was_made(self) -> None:
        repeat = answered(2, 3, report("a"), Answer.ALREADY_RECORDED)

        assert not is_linearizable([answered(0, 1, grant("a")), repeat, unanswered(4, report("a"))])


class TestRest:
    def test_an_answer_that_was_not_kept_is_refused(self) -> None:
        calls = [answered(0, 1, grant("a")), answered(2, 3, report("a"), Answer.RECORDED)]

        assert not is_linearizable([*calls, rest()])
        assert not is_linearizable([*calls, rest(report("a", outcome="failed"))])

    def test_a_record_that_nobody_asked_for_is_refused(self) -> None:
        assert not is_linearizable([answered(0, 1, grant("a")), rest(report("a"))])
