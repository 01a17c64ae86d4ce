"""CHECK TABLE, which looks and changes nothing; a check that found something is failed."""

from worker_service.domain.outcome import Failure, FailureCategory, Outcome, Result, Verdict
from worker_service.operations.mariadb.answers import Fate
from worker_service.operations.mariadb.options import LOCK_TIMEOUT, Options
from worker_service.operations.mariadb.procedure import Facts, judge
from worker_service.operations.mariadb.tables import ENGINES_ELSEWHERE, Table, reading_keeps_out
from worker_service.operations.mariadb.wording import quoted
from worker_service.operations.options import FORMER_ATTEMPT, ChoiceOption
from worker_service.operations.wording import count, listed

_DEPTH = ChoiceOption(
    name="depth",
    description="How much is looked at: medium, quick, extended (default medium; InnoDB knows quick and others).",
    default="medium",
    choices=("medium", "quick", "extended"),
)


class IntegrityCheck:
    """Check every table, its rows and its indexes."""

    name = "integrity_check"
    description = "Check every table and its indexes (CHECK TABLE)."
    options = (_DEPTH, LOCK_TIMEOUT, FORMER_ATTEMPT)
    only_looks = True
    copies = False
    engines_left_alone = ENGINES_ELSEWHERE

    def statement(self, table: Table, options: Options, /) -> str:
        """One statement a table; medium is the server's own way."""
        word = _DEPTH.choices[options[_DEPTH.name]]
        return f"CHECK TABLE {quoted(table.name)}" + ("" if word == "medium" else f" {word.upper()}")

    def keeps_out(self, table: Table, _options: Options, /) -> str:
        """Nobody, but of an engine that locks the table as a whole."""
        return reading_keeps_out(table)

    def judge(self, facts: Facts, /) -> Result:
        """A single damaged table fails the check, however it ended."""
        swept = facts.swept
        damaged = swept.having(Fate.DAMAGED)
        checked = swept.having(Fate.DONE, Fate.NOTHING_TO_DO)
        measures = {"tables_checked": float(len(checked) + len(damaged)), "errors_found": float(len(damaged))}
        if damaged:
            found = listed(f"{name}: {swept.answers[name].text}" for name in damaged)
            text = (
                f"{count(len(damaged), 'table')} of {swept.total} damaged: {found}. Keep a copy, restore a backup."
            )
            failure = Failure(reason="DAMAGED", message=text, category=FailureCategory.CORRUPT, retryable=False)
            return Result(outcome=Outcome.FAILED, reason=text, failure=failure, after=measures)
        return judge(facts, "checked", measures, _verdict)


def _verdict(checked: list[str]) -> tuple[Verdict, str]:
    return Verdict.EFFECTIVE, f"checked {count(len(checked), 'table')}, no errors"
