"""What became of each file, and the one result that is told of them all."""

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from worker_service.domain.outcome import Failure, FailureCategory, Outcome, Result, Verdict

_SHOWN = 5
_CATEGORIES = {
    errno.ENOSPC: FailureCategory.DISK_FULL,
    errno.EDQUOT: FailureCategory.DISK_FULL,
    errno.EACCES: FailureCategory.PERMISSION,
    errno.EPERM: FailureCategory.PERMISSION,
    errno.EROFS: FailureCategory.PERMISSION,
    errno.ENOENT: FailureCategory.UNAVAILABLE,
}
_ADVICE = {
    FailureCategory.DISK_FULL: "free some space beside the file",
    FailureCategory.PERMISSION: "let the worker's user read the file and write its folder",
    FailureCategory.UNAVAILABLE: "it was moved or removed meanwhile",
}


class Kind(Enum):
    """What became of a file."""

    DONE = auto()
    NO_EFFECT = auto()
    SKIPPED = auto()
    FAILED = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What became of one file; ``failure`` is set of one that failed."""

    name: str
    kind: Kind
    told: str
    failure: Failure | None = None


def failed(name: str, reason: str, message: str, category: FailureCategory, *, retryable: bool = False) -> Ending:
    """Return the ending of a file that could not be done."""
    failure = Failure(reason=reason, message=message, category=category, retryable=retryable)
    return Ending(name=name, kind=Kind.FAILED, told=message, failure=failure)


def from_os_error(name: str, error: OSError) -> Ending:
    """Return the ending for what the operating system refused: with what to do about it, where that is known."""
    category = _CATEGORIES.get(error.errno or 0, FailureCategory.IO)
    advice = _ADVICE.get(category, "look into the system's log")
    reason = errno.errorcode.get(error.errno or 0, "OS_ERROR")
    message = f"{name}: {error.strerror or error}; {advice}."
    return failed(name, reason, message, category, retryable=category is not FailureCategory.PERMISSION)


def judge(endings: Sequence[Ending]) -> Result:
    """Return one result for what became of the files: what failed is not hidden by what did not."""
    done = [ending for ending in endings if ending.kind is Kind.DONE]
    failures = [ending for ending in endings if ending.kind is Kind.FAILED]
    tried = [ending for ending in endings if ending.kind is not Kind.SKIPPED]
    if not tried:
        return Result(outcome=Outcome.SKIPPED, reason=_list(endings) or "there is no file for it.")
    if len(failures) == len(tried):
        failure = failures[0].failure
        return Result(outcome=Outcome.FAILED, reason=_list(failures), failure=failure)
    if failures:
        return _completed(Verdict.PARTIALLY_EFFECTIVE, [*failures, *done])
    return _completed(Verdict.EFFECTIVE if done else Verdict.NO_EFFECT, done or tried)


def cancelled(endings: Sequence[Ending]) -> Result:
    """Return the result of what was stopped on its way."""
    done = [ending.name for ending in endings if ending.kind is Kind.DONE]
    told = f"stopped; done before: {', '.join(done[:_SHOWN])}." if done else "stopped; every file is as it was."
    return Result(outcome=Outcome.CANCELLED, reason=told)


def _completed(verdict: Verdict, endings: Sequence[Ending]) -> Result:
    return Result(outcome=Outcome.COMPLETED, verdict=verdict, reason=_list(endings))


def _list(endings: Sequence[Ending]) -> str:
    more = len(endings) - _SHOWN
    suffix = f" And {more} more." if more > 0 else ""
    return " ".join(ending.told for ending in endings[:_SHOWN]) + suffix
