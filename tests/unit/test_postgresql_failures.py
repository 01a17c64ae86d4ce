"""What PostgreSQL's errors and warnings mean for a job."""

import psycopg
import pytest
from psycopg import errors

from worker_service.domain.outcome import FailureCategory
from worker_service.operations.postgresql.failures import ENDING, failure_of
from worker_service.operations.postgresql.session import Notice
from worker_service.operations.postgresql.sweep import warned


class TestErrors:
    @pytest.mark.parametrize(
        ("state", "reason", "category", "retryable", "ends"),
        [
            ("08006", "CONNECTION_LOST", FailureCategory.UNAVAILABLE, True, True),
            ("0A000", "NOT_SUPPORTED", FailureCategory.INVALID, False, False),
            ("22012", "SCHEMA", FailureCategory.SCHEMA, False, False),
            ("22023", "INVALID_VALUE", FailureCategory.INVALID, False, False),
            ("23505", "DUPLICATE_KEY", FailureCategory.CORRUPT, False, False),
            ("25006", "READ_ONLY", FailureCategory.UNAVAILABLE, False, True),
            ("28P01", "LOGIN_REFUSED", FailureCategory.PERMISSION, False, True),
            ("3D000", "LOGIN_REFUSED", FailureCategory.PERMISSION, False, True),
            ("40P01", "DEADLOCK", FailureCategory.LOCKED, True, False),
            ("42501", "PERMISSION_DENIED", FailureCategory.PERMISSION, False, False),
            ("42704", "UNDEFINED_OBJECT", FailureCategory.SCHEMA, False, False),
            ("42P01", "GONE", FailureCategory.SCHEMA, False, False),
            ("42P22", "UNDEFINED_OBJECT", FailureCategory.SCHEMA, False, False),
            ("53100", "DISK_FULL", FailureCategory.DISK_FULL, False, True),
            ("53200", "OUT_OF_MEMORY", FailureCategory.IO, True, False),
            ("53300", "TOO_MANY_CONNECTIONS", FailureCategory.UNAVAILABLE, True, False),
            ("55P03", "LOCK_TIMEOUT", FailureCategory.LOCKED, True, False),
            ("57014", "QUERY_CANCELED", FailureCategory.TIMEOUT, False, True),
            ("57P01", "CONNECTION_LOST", FailureCategory.UNAVAILABLE, True, True),
            ("57P03", "CONNECTION_LOST", FailureCategory.UNAVAILABLE, True, True),
            ("58030", "IO_ERROR", FailureCategory.IO, True, False),
            ("P0001", "SCHEMA", FailureCategory.SCHEMA, False, False),
            ("XX002", "DATA_CORRUPTED", FailureCategory.CORRUPT, False, False),
            ("XX000", "INTERNAL", FailureCategory.INTERNAL, False, False),
        ],
    )
    def test_each_state_has_its_meaning(
        self, state: str, reason: str, category: FailureCategory, retryable: bool, ends: bool
    ) -> None:
        failure = failure_of(errors.lookup(state)("the server says so."))

        assert (failure.reason, failure.category, failure.retryable) == (reason, category, retryable)
        assert (failure.reason in ENDING) == ends
        assert failure.message.endswith("(the server says so).")

    @pytest.mark.parametrize(
        ("said", "reason"),
        [
            ("connection refused", "CONNECTION_LOST"),
            ('FATAL:  password authentication failed for user "u"', "LOGIN_REFUSED"),
            ('FATAL:  database "x" does not exist', "LOGIN_REFUSED"),
            ("connection failed: fe_sendauth: no password supplied", "LOGIN_REFUSED"),
            ('FATAL:  no pg_hba.conf entry for host "h"', "LOGIN_REFUSED"),
            ("FATAL:  the database system is starting up", "CONNECTION_LOST"),
            ("FATAL:  sorry, too many clients already", "CONNECTION_LOST"),
        ],
    )
    def test_a_login_that_was_refused_is_told_by_its_words(self, said: str, reason: str) -> None:
        assert failure_of(psycopg.OperationalError(said)).reason == reason

    def test_what_the_driver_itself_refuses_is_a_defect(self) -> None:
        assert failure_of(psycopg.ProgrammingError()).category is FailureCategory.INTERNAL


class TestWarnings:
    @pytest.mark.parametrize(
        ("severity", "state", "function", "reason"),
        [
            ("WARNING", "01000", "vacuum_is_relation_owner", "PERMISSION_DENIED"),
            ("WARNING", "01000", "vacuum_is_permitted_for_relation", "PERMISSION_DENIED"),
            ("WARNING", "55P03", "vacuum_open_relation", "LOCK_TIMEOUT"),
            ("WARNING", "42P01", "vacuum_open_relation", "GONE"),
            ("WARNING", "01000", "analyze_rel", "PASSED_OVER"),
        ],
    )
    def test_what_was_passed_over_was_not_done_in_any_language(
        self, severity: str, state: str, function: str, reason: str
    ) -> None:
        notice = Notice(severity=severity, sqlstate=state, function=function, text="überspringe »t«")

        failure = warned([notice])

        assert failure is not None
        assert failure.reason == reason
        assert "überspringe »t«" in failure.message

    @pytest.mark.parametrize(
        ("severity", "function"), [("NOTICE", "analyze_rel"), ("WARNING", "vacuum_get_cutoffs")]
    )
    def test_other_words_say_nothing(self, severity: str, function: str) -> None:
        assert (
            warned([Notice(severity=severity, sqlstate="01000", function=function, text="far in the past")])
            is None
        )
