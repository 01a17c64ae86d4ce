"""What the server's rows, warnings and errors are taken for: each as it was seen on a server."""

import pymysql
import pytest

from worker_service.domain.outcome import FailureCategory
from worker_service.operations.mariadb.answers import Answer, Fate, of_error, of_rows
from worker_service.operations.mariadb.connection import ServerError, translated
from worker_service.operations.mariadb.failures import failure_of, meets_all

NOTE = ("d.t", "optimize", "note", "Table does not support optimize, doing recreate + analyze instead")
OK = ("d.t", "optimize", "status", "OK")
FAILED = ("d.t", "optimize", "status", "Operation failed")


def row(kind: str, text: str) -> tuple[str, str, str, str]:
    return ("d.t", "optimize", kind, text)


class TestRows:
    def test_recreate_and_analyze_instead_is_how_innodb_does_it(self) -> None:
        assert of_rows([NOTE, OK], []) == Answer(fate=Fate.DONE)

    @pytest.mark.parametrize(
        ("error", "warnings", "category"),
        [
            ("Lock wait timeout exceeded; try restarting transaction", [], FailureCategory.LOCKED),
            ("words in another language", [("Error", 1205, "Lock wait timeout")], FailureCategory.LOCKED),
            ("Query execution was interrupted (max_statement_time exceeded)", [], FailureCategory.TIMEOUT),
            ("The table 't' is full", [], FailureCategory.DISK_FULL),
            ("Table 'd.t' doesn't exist in engine", [], FailureCategory.CORRUPT),
            ("INSERT command denied to user", [], FailureCategory.PERMISSION),
            ("Table 't' is read only", [], FailureCategory.PERMISSION),
            ("something new", [], FailureCategory.INTERNAL),
        ],
    )
    def test_an_error_is_in_a_row_and_its_number_in_the_warnings_if_anywhere(
        self, error: str, warnings: list[tuple[str, int, str]], category: FailureCategory
    ) -> None:
        answer = of_rows([NOTE, row("error", error), FAILED], warnings)

        assert answer.failure is not None
        assert answer.failure.category is category or category is FailureCategory.INTERNAL
        assert answer.fate in {Fate.FAILED, Fate.INTERRUPTED}

    @pytest.mark.parametrize(
        ("error", "told"),
        [
            ("Table 'd.t' doesn't exist", "it is not there any more"),
            ("Table 'corrupt_d.crashed_jobs' doesn't exist", "it is not there any more"),
            ("'d.v' is not of type 'BASE TABLE'", "it is no table with rows of its own"),
        ],
    )
    def test_what_is_no_table_is_left_alone(self, error: str, told: str) -> None:
        answer = of_rows([row("Error", error), FAILED], [])

        assert answer == Answer(fate=Fate.LEFT_ALONE, text=told)

    def test_an_interrupt_is_told_apart(self) -> None:
        answer = of_rows([NOTE, row("error", "Query execution was interrupted"), FAILED], [])

        assert answer.fate is Fate.INTERRUPTED

    def test_a_failure_without_a_word_is_a_kill(self) -> None:
        answer = of_rows([FAILED], [])

        assert answer.fate is Fate.INTERRUPTED
        assert answer.failure is not None
        assert answer.failure.retryable

    def test_an_engine_that_does_not_support_it_is_left_alone(self) -> None:
        answer = of_rows([row("note", "The storage engine for the table doesn't support optimize")], [])

        assert answer.fate is Fate.LEFT_ALONE

    def test_what_is_up_to_date_had_nothing_to_do(self) -> None:
        assert of_rows([row("status", "Table is already up to date")], []).fate is Fate.NOTHING_TO_DO

    @pytest.mark.parametrize(
        "rows",
        [
            [row("warning", "Size of datafile is: 0"), row("error", "Corrupt")],
            [row("error", "Table 't' is marked as crashed and should be repaired"), FAILED],
            [row("Warning", "InnoDB: Index k contains 5 entries, should be 6"), row("status", "Corrupt")],
        ],
    )
    def test_damage_is_damage_in_each_of_its_forms(self, rows: list[tuple[str, str, str, str]]) -> None:
        answer = of_rows(rows, [])

        assert answer.fate is Fate.DAMAGED
        assert answer.failure is not None
        assert answer.failure.category is FailureCategory.CORRUPT

    @pytest.mark.parametrize("rows", [[], [row("status", "Perhaps")], [row("note", "hm")]])
    def test_what_is_not_understood_is_doubtful(self, rows: list[tuple[str, str, str, str]]) -> None:
        answer = of_rows(rows, [])

        assert answer.fate is Fate.DOUBTFUL
        assert answer.text

    def test_a_warning_beside_an_ok_is_kept(self) -> None:
        assert of_rows([row("warning", "1 client is using it"), OK], []).notes == ("1 client is using it",)


class TestErrors:
    @pytest.mark.parametrize(
        ("number", "text", "category", "retryable"),
        [
            (1045, "Access denied for user 'x'@'h'", FailureCategory.PERMISSION, False),
            (1049, "Unknown database 'x'", FailureCategory.UNAVAILABLE, False),
            (1205, "Lock wait timeout exceeded", FailureCategory.LOCKED, True),
            (1114, "The table 'x' is full", FailureCategory.DISK_FULL, False),
            (1030, 'Got error 28 "No space left on device" from storage engine', FailureCategory.DISK_FULL, False),
            (1030, 'Got error 5 "Input/output error" from storage engine', FailureCategory.IO, True),
            (1290, "running with the --read-only option", FailureCategory.PERMISSION, False),
            (1036, "Table 'x' is read only", FailureCategory.PERMISSION, False),
            (1814, "Tablespace has been discarded for table `x`", FailureCategory.SCHEMA, False),
            (4047, "InnoDB refuses to write tables with ROW_FORMAT=COMPRESSED", FailureCategory.SCHEMA, False),
            (2006, "MySQL server has gone away", FailureCategory.UNAVAILABLE, True),
            (1969, "max_statement_time exceeded", FailureCategory.TIMEOUT, False),
            (1194, "Table 'x' is marked as crashed", FailureCategory.CORRUPT, False),
            (1799, "Creating index required more than", FailureCategory.LOCKED, True),
            (9999, "What nobody has seen", FailureCategory.INTERNAL, True),
        ],
    )
    def test_each_has_its_category_and_a_sentence_with_the_servers_words(
        self, number: int, text: str, category: FailureCategory, retryable: bool
    ) -> None:
        failure = failure_of(number, text)

        assert (failure.category, failure.retryable) == (category, retryable)
        assert failure.message.endswith(f"({text}, error {number}).")
        assert failure.message[0].isupper()

    def test_the_drivers_own_trouble_has_no_number(self) -> None:
        error = translated(RuntimeError("'cryptography' package is required"))
        failure = failure_of(error.number, error.text)

        assert meets_all(error)
        assert failure.reason == "DRIVER_ERROR"
        assert failure.message == "The connection failed ('cryptography' package is required)."

    def test_who_asks_again_after_the_connection_broke_is_told_that(self) -> None:
        error = translated(pymysql.err.InterfaceError(0, ""))

        assert failure_of(error.number, error.text).reason == "CR_SERVER_GONE_ERROR"
        assert meets_all(error)

    def test_what_the_network_says_is_no_error_of_the_server(self) -> None:
        assert translated(OSError(111, "refused")).number == 0

    def test_a_raised_one_is_read_like_a_row(self) -> None:
        assert of_error(1146, "Table 'd.t' doesn't exist").fate is Fate.LEFT_ALONE
        assert meets_all(ServerError(2013, "Lost connection"))
        assert not meets_all(ServerError(1205, "Lock wait timeout exceeded"))
