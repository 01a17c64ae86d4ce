"""What is wrong with a call of a worker, whatever the store knows."""

import math
from collections.abc import Mapping, Sequence

from manager_service.domain import fleet
from manager_service.domain.checks import MAX_NAME, MAX_TEXT, Violations, is_uuid
from manager_service.domain.conditions import MAX_CONDITION
from manager_service.domain.errors import ProtocolVersionUnsupportedError
from manager_service.domain.fleet import (
    MAX_SERVED_TARGETS,
    Lock,
    OfferedOperation,
    OptionSpec,
    Registration,
    ServedTarget,
)
from manager_service.domain.inspection import InspectedObject, InspectionResult
from manager_service.domain.leases import Heartbeat, LogBatch, Poll, Report
from manager_service.domain.model import Span
from manager_service.domain.request import LAST_INSTANT, MAX_THRESHOLDS
from manager_service.domain.states import Outcome
from manager_service.domain.totals import MAX_WAITERS, LockWaiter

MAX_SLOTS = 1_000
MAX_BATCH = 1_000
MAX_MEASURES = 64
MAX_LOCKS = 16
MAX_KEY = 512
MAX_OFFERS = 1_000
MAX_VALUES = 64
MAX_REASON = 4_096
MAX_LINE_BYTES = 8_192
MAX_PARALLEL = 1_000
MAX_WAITER_TEXT = 256
MAX_OBJECTS = 1_000_000
MAX_SIZE = 1 << 60
LEVELS = frozenset({"debug", "info", "warning", "error"})


def check_registration(registration: Registration, protocol_version: int) -> None:
    """Refuse a registration that makes no sense.

    Raises:
        ProtocolVersionUnsupportedError: the worker speaks too old or too new a version of the protocol, so its
            fields may mean others.
        InvalidRequestError: one or more fields are wrong.
    """
    if protocol_version not in fleet.TAKEN:
        raise ProtocolVersionUnsupportedError(protocol_version, fleet.TAKEN)
    found = Violations()
    found.name("worker_name", registration.worker_name)
    if not is_uuid(registration.instance_id):
        found.add("instance_id", "must be a UUID in its canonical form, made anew by each process")
    found.text("build", registration.build)
    found.text("host", registration.host)
    found.labels("labels", registration.labels)
    found.number("slots", registration.slots, 1, MAX_SLOTS)
    if found.count("targets", registration.targets, MAX_SERVED_TARGETS):
        for index, target in enumerate(registration.targets):
            _check_target(found, f"targets[{index}]", target)
        found.once("targets", [target.name for target in registration.targets], part=".name")
    found.refuse()


def _check_target(found: Violations, path: str, target: ServedTarget) -> None:
    found.name(f"{path}.name", target.name)
    found.name(f"{path}.engine", target.engine)
    found.text(f"{path}.engine_version", target.engine_version)
    found.name(f"{path}.identity", target.identity, longest=MAX_KEY)
    found.labels(f"{path}.labels", target.labels)
    found.number(f"{path}.max_parallel", target.max_parallel, 1, MAX_PARALLEL)
    if found.count(f"{path}.operations", target.operations, MAX_OFFERS):
        for index, offer in enumerate(target.operations):
            _check_offer(found, f"{path}.operations[{index}]", offer)
        found.once(f"{path}.operations", [offer.name for offer in target.operations], part=".name")


def _check_offer(found: Violations, path: str, offer: OfferedOperation) -> None:
    found.name(f"{path}.name", offer.name)
    _check_length(found, f"{path}.description", offer.description, MAX_REASON)
    if found.count(f"{path}.options", offer.options, MAX_MEASURES):
        for index, option in enumerate(offer.options):
            _check_option(found, f"{path}.options[{index}]", option)
        found.once(f"{path}.options", [option.name for option in offer.options], part=".name")
    _check_locks(found, f"{path}.locks", offer.locks)


def _check_option(found: Violations, path: str, option: OptionSpec) -> None:
    found.name(f"{path}.name", option.name)
    _check_length(found, f"{path}.description", option.description, MAX_REASON)
    if option.minimum is not None and option.maximum is not None and option.minimum > option.maximum:
        found.add(f"{path}.minimum", f"is {option.minimum}, which is more than the maximum {option.maximum}")
    if found.count(f"{path}.values", option.values, MAX_VALUES):
        for index, value in enumerate(option.values):
            found.name(f"{path}.values[{index}]", value)


def check_poll(poll: Poll, wait: Span, *, path: str = "") -> None:
    """Refuse a poll that makes no sense; raise ``InvalidRequestError``."""
    found = Violations()
    if poll.sequence < 1:
        found.add(f"{path}poll_sequence", "must be at least 1, and rise with every new poll")
    found.number(f"{path}max_leases", poll.max_leases, 1, MAX_SLOTS)
    found.span("wait", wait)
    found.refuse()


def check_heartbeat(heartbeat: Heartbeat, wait: Span) -> None:
    """Refuse a heartbeat that makes no sense; raise ``InvalidRequestError``."""
    found = Violations()
    if heartbeat.sequence < 1:
        found.add("sequence", "must be at least 1, and rise with every heartbeat")
    found.span("wait", wait)
    if found.count("leases", heartbeat.leases, MAX_SLOTS):
        for index, lease in enumerate(heartbeat.leases):
            _check_lease(found, f"leases[{index}].", lease.lease_id, lease.attempt)
        found.once("leases", [lease.lease_id for lease in heartbeat.leases], part=".lease_id")
    if found.count("held_back", heartbeat.held_back, MAX_SERVED_TARGETS):
        for index, target in enumerate(heartbeat.held_back):
            found.name(f"held_back[{index}].target", target)
    found.refuse()


def _check_lease(found: Violations, path: str, lease_id: str, attempt: int) -> None:
    found.name(f"{path}lease_id", lease_id)
    if attempt < 1:
        found.add(f"{path}attempt", "must be at least 1")


def check_reports(reports: Sequence[Report], poll: Poll | None) -> None:
    """Refuse reports that make no sense; raise ``InvalidRequestError``."""
    found = Violations()
    if found.count("results", reports, MAX_BATCH):
        for index, report in enumerate(reports):
            _check_report(found, f"results[{index}]", report)
    found.refuse()
    if poll:
        check_poll(poll, 0, path="want_next.")


def _check_report(found: Violations, path: str, report: Report) -> None:
    found.name(f"{path}.child_job_id", report.child_job_id)
    _check_lease(found, f"{path}.", report.lease_id, report.attempt)
    if not is_uuid(report.report_id):
        found.add(f"{path}.report_id", "must be a UUID in its canonical form, made once per report")
    _check_companions(found, path, report)
    _check_length(found, f"{path}.reason", report.reason, MAX_REASON)
    if report.failure is not None:
        found.text(f"{path}.failure.reason", report.failure.reason, longest=MAX_NAME)
        _check_length(found, f"{path}.failure.message", report.failure.message, MAX_REASON)
    if report.inspection is not None:
        _check_inspection(found, f"{path}.inspection", report.inspection)
    _check_measures(found, f"{path}.before", report.before)
    _check_measures(found, f"{path}.after", report.after)
    _check_waiters(found, f"{path}.lock_waiters", report.waiters)


def _check_waiters(found: Violations, path: str, waiters: Sequence[LockWaiter]) -> None:
    if not found.count(path, waiters, MAX_WAITERS):
        return
    for index, one in enumerate(waiters):
        for text in (one.application, one.user, one.object, one.lock_mode):
            _check_length(found, f"{path}[{index}]", text, MAX_WAITER_TEXT)
        if not (math.isfinite(one.seconds) and one.seconds >= 0 and one.sessions >= 0):
            found.add(f"{path}[{index}]", "must have seconds and sessions of at least 0")


def _check_length(found: Violations, path: str, text: str, most: int) -> None:
    """Check a text for people, which may have more than one line."""
    if len(text) > most:
        found.add(path, f"has {len(text)} characters; at most {most} are allowed")


def _check_companions(found: Violations, path: str, report: Report) -> None:
    """Check that what comes with an outcome is there, and what does not is not."""
    companions = (
        ("verdict", report.verdict, Outcome.COMPLETED),
        ("failure", report.failure, Outcome.FAILED),
        ("released", report.released, Outcome.RELEASED),
    )
    for name, value, outcome in companions:
        if report.outcome is outcome and value is None:
            found.add(f"{path}.{name}", f"is required with {outcome.name}")
        if report.outcome is not outcome and value is not None:
            found.add(f"{path}.{name}", f"goes with {outcome.name} only")
    again = report.outcome is Outcome.RELEASED or (report.failure is not None and report.failure.retryable)
    if report.retry_after is not None and not again:
        found.add(f"{path}.retry_after", "goes with RELEASED or a retryable failure only")
    found.span(f"{path}.retry_after", report.retry_after)


def _check_inspection(found: Violations, path: str, inspection: InspectionResult) -> None:
    _check_locks(found, f"{path}.locks", inspection.locks)
    if found.count(f"{path}.only_if", inspection.only_if, MAX_THRESHOLDS):
        for index, threshold in enumerate(inspection.only_if):
            found.text(f"{path}.only_if[{index}].condition", threshold.condition, longest=MAX_CONDITION)
            found.text(f"{path}.only_if[{index}].operation", threshold.operation)
            found.text(f"{path}.only_if[{index}].object", threshold.object)
    if not found.count(f"{path}.objects", inspection.objects, MAX_OBJECTS):
        return
    names = {name for item in inspection.objects for name in item.measures}
    _check_measures(found, f"{path}.measures", dict.fromkeys(names, 0.0))
    for index, item in enumerate(inspection.objects):
        _check_object(found, f"{path}.objects[{index}]", item)
    found.once(f"{path}.objects", [item.object or "" for item in inspection.objects], part=".object")


def _check_object(found: Violations, path: str, item: InspectedObject) -> None:
    if item.object is not None and (not 0 < len(item.object) <= MAX_KEY or "\0" in item.object):
        found.add(f"{path}.object", f"must be a name of 1 to {MAX_KEY} characters")
    if not 0 <= item.size_bytes <= MAX_SIZE:
        found.add(f"{path}.size_bytes", "must not be negative, nor more than an exbibyte")
    if not all(map(math.isfinite, item.measures.values())):
        found.add(f"{path}.measures", "must be finite numbers, or NaN where they are not known")
    if item.locks:
        _check_locks(found, f"{path}.locks", item.locks)
    found.once(f"{path}.operations", item.operations)
    found.once(f"{path}.covered", [each.operation for each in item.covered])
    if {each.operation for each in item.covered} & {each.by for each in item.covered}:
        found.add(f"{path}.covered", "has an operation that covers another and is covered; one has to be done")
    for text in (*item.previews, item.left_out, *(each.reason for each in item.covered)):
        _check_length(found, path, text, MAX_REASON)


def _check_locks(found: Violations, path: str, locks: Sequence[Lock]) -> None:
    if found.count(path, locks, MAX_LOCKS):
        for index, lock in enumerate(locks):
            found.name(f"{path}[{index}].key", lock.key, longest=MAX_KEY)


def _check_measures(found: Violations, path: str, measures: Mapping[str, float]) -> None:
    if not found.count(path, measures, MAX_MEASURES):
        return
    for name, value in measures.items():
        if found.name(f"{path}[{name[:MAX_TEXT]}]", name) and not math.isfinite(value):
            found.add(f"{path}[{name}]", "must be a finite number")


def check_logs(batch: LogBatch) -> None:
    """Refuse log entries that make no sense; raise ``InvalidRequestError``."""
    found = Violations()
    found.name("child_job_id", batch.child_job_id)
    _check_lease(found, "", batch.lease_id, batch.attempt)
    if batch.offset < 0:
        found.add("offset", "must not be negative")
    if found.count("entries", batch.entries, MAX_BATCH):
        for index, entry in enumerate(batch.entries):
            if not 0 <= entry.time <= LAST_INSTANT:
                found.add(f"entries[{index}].time", "must lie between the years 1970 and 9999")
            if entry.level not in LEVELS:
                found.add(f"entries[{index}].level", f"must be one of {', '.join(sorted(LEVELS))}")
            if len(entry.message.encode()) > MAX_LINE_BYTES:
                found.add(f"entries[{index}].message", f"has more than {MAX_LINE_BYTES} bytes; cut it")
    found.refuse()
