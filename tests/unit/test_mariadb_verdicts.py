"""The verdict on a sweep, from what the server said and what its books said before and after."""

from dataclasses import replace

import pytest

from worker_service.domain.outcome import Outcome, Result, Verdict
from worker_service.operations.mariadb.analyze import Analyze
from worker_service.operations.mariadb.answers import Answer, Fate, of_error
from worker_service.operations.mariadb.check import IntegrityCheck
from worker_service.operations.mariadb.failures import failure_of
from worker_service.operations.mariadb.procedure import Facts
from worker_service.operations.mariadb.rebuild import Reindex, Vacuum
from worker_service.operations.mariadb.state import Files, State, rebuilt
from worker_service.operations.mariadb.sweep import Swept
from worker_service.operations.mariadb.tables import Table

DONE = Answer(fate=Fate.DONE)
KILLED = of_error(1317, "Query execution was interrupted")
GONE = failure_of(2013, "Lost connection to MySQL server during query")


def state(space: int | None = 1, size: int = 100, created: str = "monday", engine: str = "InnoDB") -> State:
    """Make the books of a database of two tables; without a space nobody may read the files."""
    table = Table(name="a", kind="BASE TABLE", engine=engine, created=created, data_bytes=size)
    files = None
    if space is not None:
        files = {name: Files(spaces=frozenset({space}), size=size) for name in ("a", "b")}
    return State(tables={"a": table, "b": replace(table, name="b")}, files=files)


def facts(
    answers: dict[str, Answer],
    before: State,
    after: State | None,
    *,
    stopped: bool = False,
    lost: bool = False,
    renewed: dict[str, bool] | None = None,
) -> Facts:
    swept = Swept(answers=answers, total=2, stopped=stopped, end=GONE if lost else None)
    return Facts(swept=swept, before=before, after=after, renewed=renewed)


def both(answer: Answer) -> dict[str, Answer]:
    return {"a": answer, "b": answer}


def told(result: Result) -> tuple[Outcome, Verdict | None]:
    return result.outcome, result.verdict


class TestRebuilds:
    def test_an_error_after_the_work_is_no_failure(self) -> None:
        result = Vacuum().judge(facts(both(KILLED), state(1, 100), state(2, 40)))

        assert told(result) == (Outcome.COMPLETED, Verdict.EFFECTIVE)
        assert result.reason == "rebuilt 2 tables, reclaimed 120 bytes: 60 % of their files."

    @pytest.mark.parametrize("engine", ["InnoDB", "MyISAM"])
    def test_what_writers_change_meanwhile_makes_no_failure_a_rebuild(self, engine: str) -> None:
        before, after = state(None, 100, engine=engine), state(None, 140, engine=engine)

        result = Reindex().judge(facts(both(of_error(1205, "Lock wait timeout exceeded")), before, after))

        assert result.outcome is Outcome.FAILED
        assert result.reason.startswith("None of 2 tables could be rebuilt")

    def test_another_date_of_its_making_is_a_rebuild_whatever_was_said(self) -> None:
        result = Reindex().judge(facts(both(KILLED), state(None), state(None, created="tuesday")))

        assert told(result) == (Outcome.COMPLETED, Verdict.EFFECTIVE)

    def test_what_was_said_is_borne_out_by_any_change(self) -> None:
        result = Reindex().judge(facts(both(DONE), state(None, 100), state(None, 140)))

        assert told(result) == (Outcome.COMPLETED, Verdict.EFFECTIVE)

    @pytest.mark.parametrize("ending", ["stopped", "lost"])
    def test_an_end_that_came_too_late_ended_nothing(self, ending: str) -> None:
        answers = {"a": DONE, "b": KILLED}

        result = Reindex().judge(
            facts(answers, state(1), state(2), stopped=ending == "stopped", lost=ending == "lost")
        )

        assert told(result) == (Outcome.COMPLETED, Verdict.EFFECTIVE)

    def test_a_lost_server_that_cannot_be_asked_has_failed(self) -> None:
        result = Reindex().judge(facts({"a": DONE, "b": KILLED}, state(), None, lost=True))

        assert result.outcome is Outcome.FAILED
        assert result.reason.endswith("It rebuilt 1 of 2 tables.")

    @pytest.mark.parametrize("procedure", [Vacuum(), Reindex()])
    def test_without_a_second_look_nothing_is_known(self, procedure: Vacuum | Reindex) -> None:
        result = procedure.judge(facts(both(DONE), state(), None))

        assert told(result) == (Outcome.COMPLETED, Verdict.UNKNOWN)

    def test_what_nothing_tells_of_is_unknown(self) -> None:
        result = Reindex().judge(facts(both(DONE), state(None), state(None)))

        assert told(result) == (Outcome.COMPLETED, Verdict.UNKNOWN)
        assert "grant PROCESS" in result.reason

    def test_what_is_known_of_some_is_partial(self) -> None:
        after = state(None)
        after = replace(after, tables={**after.tables, "b": replace(after.tables["b"], created="tuesday")})

        result = Reindex().judge(facts(both(DONE), state(None), after))

        assert told(result) == (Outcome.COMPLETED, Verdict.PARTIALLY_EFFECTIVE)

    def test_bytes_of_some_are_told_with_what_is_missing(self) -> None:
        before, after = state(1, 100), state(2, 40)
        shared = replace(after, files={"a": Files(spaces=frozenset({2}), size=40)})

        result = Vacuum().judge(facts(both(DONE), before, shared))

        assert told(result) == (Outcome.COMPLETED, Verdict.EFFECTIVE)
        assert "of 1 table more nobody tells the size" in result.reason

    def test_a_table_that_went_away_tells_nothing(self) -> None:
        assert rebuilt("a", state(1), State()) is None


class TestStatistics:
    @pytest.mark.parametrize(
        ("renewed", "verdict"),
        [
            ({"a": True, "b": True}, Verdict.EFFECTIVE),
            ({"a": True, "b": False}, Verdict.PARTIALLY_EFFECTIVE),
            ({"a": False, "b": False}, Verdict.NO_EFFECT),
            ({"a": True}, Verdict.EFFECTIVE),
            ({}, Verdict.UNKNOWN),
            (None, Verdict.UNKNOWN),
        ],
    )
    def test_their_dates_decide(self, renewed: dict[str, bool] | None, verdict: Verdict) -> None:
        result = Analyze().judge(facts(both(DONE), state(), state(), renewed=renewed))

        assert told(result) == (Outcome.COMPLETED, verdict)

    def test_up_to_date_ones_are_no_effect(self) -> None:
        answer = Answer(fate=Fate.NOTHING_TO_DO, text="Table is already up to date")

        assert Analyze().judge(facts(both(answer), state(), state())).verdict is Verdict.NO_EFFECT


class TestChecks:
    def test_a_damage_outdoes_a_stop(self) -> None:
        damaged = Answer(fate=Fate.DAMAGED, text="Corrupt")

        result = IntegrityCheck().judge(facts({"a": damaged}, state(), state(), stopped=True))

        assert result.outcome is Outcome.FAILED
        assert result.failure is not None
        assert result.failure.reason == "DAMAGED"

    def test_doubt_about_one_is_doubt(self) -> None:
        doubtful = Answer(fate=Fate.DOUBTFUL, text="killed")

        result = IntegrityCheck().judge(facts({"a": DONE, "b": doubtful}, state(), state()))

        assert told(result) == (Outcome.COMPLETED, Verdict.UNKNOWN)
        assert result.reason == "checked 1 of 2 tables; not known of b: killed."
