import apsw
import pytest

from worker_service.domain.outcome import FailureCategory, Outcome
from worker_service.operations.sqlite.failures import failed_with, failure_of, is_of_one_object


class RaisedError(apsw.Error):
    """An error as apsw raises it."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.extendedresult = code


def error(code: int, message: str = "it went wrong") -> apsw.Error:
    return RaisedError(code, message)


class TestFailureOf:
    @pytest.mark.parametrize(
        ("code", "reason", "category", "retryable"),
        [
            (apsw.SQLITE_BUSY, "SQLITE_BUSY", FailureCategory.LOCKED, True),
            (apsw.SQLITE_BUSY_SNAPSHOT, "SQLITE_BUSY_SNAPSHOT", FailureCategory.LOCKED, True),
            (apsw.SQLITE_LOCKED, "SQLITE_LOCKED", FailureCategory.LOCKED, True),
            (apsw.SQLITE_FULL, "SQLITE_FULL", FailureCategory.DISK_FULL, False),
            (apsw.SQLITE_IOERR_WRITE, "SQLITE_IOERR_WRITE", FailureCategory.IO, True),
            (apsw.SQLITE_IOERR_NOMEM, "SQLITE_IOERR_NOMEM", FailureCategory.IO, True),
            (apsw.SQLITE_READONLY, "SQLITE_READONLY", FailureCategory.PERMISSION, False),
            (apsw.SQLITE_READONLY_DIRECTORY, "SQLITE_READONLY_DIRECTORY", FailureCategory.PERMISSION, False),
            (apsw.SQLITE_READONLY_DBMOVED, "SQLITE_READONLY_DBMOVED", FailureCategory.UNAVAILABLE, False),
            (apsw.SQLITE_PERM, "SQLITE_PERM", FailureCategory.PERMISSION, False),
            (apsw.SQLITE_CANTOPEN, "SQLITE_CANTOPEN", FailureCategory.UNAVAILABLE, True),
            (apsw.SQLITE_CORRUPT_INDEX, "SQLITE_CORRUPT_INDEX", FailureCategory.CORRUPT, False),
            (apsw.SQLITE_NOTADB, "SQLITE_NOTADB", FailureCategory.NOT_A_DATABASE, False),
            (apsw.SQLITE_CONSTRAINT_UNIQUE, "SQLITE_CONSTRAINT_UNIQUE", FailureCategory.CORRUPT, False),
            (apsw.SQLITE_ERROR_MISSING_COLLSEQ, "SQLITE_ERROR_MISSING_COLLSEQ", FailureCategory.SCHEMA, False),
            (apsw.SQLITE_NOLFS, "SQLITE_NOLFS", FailureCategory.INTERNAL, True),
        ],
    )
    def test_every_error_has_its_meaning(
        self, code: int, reason: str, category: FailureCategory, retryable: object
    ) -> None:
        failure = failure_of(error(code))

        assert (failure.reason, failure.category, failure.retryable) == (reason, category, retryable)
        assert failure.message.endswith("(it went wrong).")

    @pytest.mark.parametrize(
        ("message", "word"),
        [("no such collation sequence: x", "collation"), ("unknown function: f()", "function"), ("odd", "schema")],
    )
    def test_a_plain_error_is_read_by_its_message(self, message: str, word: str) -> None:
        assert word in failure_of(error(apsw.SQLITE_ERROR, message)).message

    def test_an_error_of_the_driver_is_internal(self) -> None:
        failure = failure_of(apsw.BindingsError("wrong number"))

        assert (failure.reason, failure.category) == ("BindingsError", FailureCategory.INTERNAL)

    def test_an_unknown_code_keeps_its_number(self) -> None:
        assert failure_of(error(254)).reason == "SQLITE_254"

    def test_the_result_has_failed(self) -> None:
        result = failed_with(failure_of(error(apsw.SQLITE_FULL)))

        assert result.outcome is Outcome.FAILED
        assert result.failure is not None
        assert result.reason == result.failure.message

    def test_a_lock_concerns_every_object(self) -> None:
        assert not is_of_one_object(error(apsw.SQLITE_BUSY))
        assert is_of_one_object(error(apsw.SQLITE_CORRUPT))
