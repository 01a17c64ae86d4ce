import difflib
import os
import re
import socket
import tomllib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from worker_service.domain.errors import ConfigurationError
from worker_service.domain.inspection import Threshold
from worker_service.domain.throttle import Throttle
from worker_service.targets import TargetOrder, parse_target
from worker_service.thresholds import MOST, parse_threshold
from worker_service.throttle_config import read_throttle

DEFAULT_MANAGER = "127.0.0.1:7420"
FROM_STDIN = "-"
FILE_KEYS = frozenset(
    {
        "manager",
        "targets",
        "name",
        "slots",
        "max_parallel",
        "drain_grace",
        "connect_timeout",
        "labels",
        "log_format",
        "log_level",
    }
)
TARGET_KEYS = frozenset({"name", "url", "engine", "labels", "identity", "max_parallel", "throttle", "only_if"})
THROTTLE_KEYS = frozenset(field.name for field in fields(Throttle))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where the targets are named: on the command line, else in the environment, else in the file.

    Attributes:
        command_line: the targets of the command line.
        file: the configuration file.
        content: what the file said when the worker started.
        max_parallel: how many operations may run at once on a target that does not say it itself.
    """

    command_line: tuple[TargetOrder, ...] = ()
    file: Path | None = None
    content: Mapping[str, Any] = field(default_factory=dict)
    max_parallel: int = 1

    def again(self) -> "Sources":
        """Read the file anew; raise ``ConfigurationError`` where it cannot be."""
        return replace(self, content=read_file(self.file) if self.file else {})

    def targets(self) -> tuple[TargetOrder, ...]:
        """Return the targets; raise ``ConfigurationError`` where one is not of a form that can be read."""
        orders = (
            self.command_line
            or environment_targets(from_environment("OVERHAUL_TARGETS"))
            or file_targets(self.content)
        )
        return tuple(replace(order, max_parallel=order.max_parallel or self.max_parallel) for order in orders)

    def differing(self, other: "Sources") -> list[str]:
        """Return which options but the targets are not what they are there."""
        keys = {*self.content, *other.content} - {"targets"}
        return sorted(key for key in keys if self.content.get(key) != other.content.get(key))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """Everything a worker is told from outside, read once.

    Attributes:
        manager: the manager's address; ``-`` when it is the first line of stdin.
        targets: the databases, in the order they were given.
        name: the worker's name.
        slots: how many operations run at once.
        drain_grace: how long operations may go on after SIGTERM, in seconds.
        connect_timeout: how long to look for the manager at the start, in seconds; ``None`` for ever.
        labels: the worker's labels.
        log_format: ``console`` or ``json``.
        log_level: the lowest level that is logged.
        stdin_lifeline: whether the end of stdin ends the worker.
        distinct_targets: whether two names of one database are refused.
        sources: where the targets were read, and are read again.
    """

    manager: str
    targets: tuple[TargetOrder, ...]
    name: str
    slots: int
    drain_grace: float
    connect_timeout: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    log_format: str = "console"
    log_level: str = "info"
    stdin_lifeline: bool = False
    distinct_targets: bool = False
    sources: Sources = field(default_factory=Sources)


def default_name() -> str:
    """Return the host's name with a random suffix, so that two workers of one host differ."""
    return f"{socket.gethostname()[:100]}-{uuid.uuid4().hex[:6]}"


def read_file(path: Path) -> dict[str, Any]:
    """Read the configuration file; keys come back with underscores.

    Raises:
        ConfigurationError: it cannot be read, or has a key that means nothing.
    """
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError(f"The configuration file {path} cannot be read: {what}.") from None
    return _known(content, FILE_KEYS, f"the configuration file {path}")


def file_targets(content: Mapping[str, Any]) -> tuple[TargetOrder, ...]:
    """Return the ``[[targets]]`` of a configuration file."""
    tables = content.get("targets", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigurationError("In the configuration file, targets are written as [[targets]] tables.")
    return tuple(_file_target(table) for table in tables)


def environment_targets(text: str) -> tuple[TargetOrder, ...]:
    """Return the targets of OVERHAUL_TARGETS, separated by spaces or commas."""
    return tuple(parse_target(part) for part in re.split(r"[\s,]+", text) if part)


def parse_labels(texts: Sequence[str]) -> dict[str, str]:
    """Read labels written ``key=value``; raise ``ConfigurationError`` for any other form."""
    labels: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigurationError(f"The label {text!r} is not of the form KEY=VALUE.")
        labels[key] = value
    return labels


def environment_labels(text: str) -> dict[str, str]:
    """Return the labels of OVERHAUL_LABELS, separated by spaces or commas."""
    return parse_labels([part for part in re.split(r"[\s,]+", text) if part])


def file_labels(content: Mapping[str, Any]) -> dict[str, str]:
    """Return the ``labels`` table of a configuration file."""
    return _labels(content.get("labels", {}), "labels")


def from_environment(name: str) -> str:
    """Return a variable of the environment; the empty text when it is not set."""
    return os.environ.get(name, "")


def _file_target(table: Mapping[str, Any]) -> TargetOrder:
    table = _known(table, TARGET_KEYS, "a [[targets]] table of the configuration file")
    for key in ("name", "url", "engine", "identity"):
        if key in table and not isinstance(table[key], str):
            raise ConfigurationError(f"In a [[targets]] table, {key} has to be text.")
    parallel = table.get("max_parallel")
    if parallel is not None and (not isinstance(parallel, int) or isinstance(parallel, bool) or parallel < 1):
        raise ConfigurationError("In a [[targets]] table, max_parallel has to be a whole number from 1.")
    if not table.get("url"):
        raise ConfigurationError("A [[targets]] table of the configuration file needs a url.")
    return TargetOrder(
        url=table["url"],
        name=table.get("name"),
        engine=table.get("engine"),
        labels=_labels(table.get("labels", {}), "labels of a target"),
        identity=table.get("identity"),
        max_parallel=parallel,
        throttle=_throttle(table) if "throttle" in table else None,
        only_if=_thresholds(table.get("only_if", [])),
    )


def _throttle(table: Mapping[str, Any]) -> Throttle:
    name = table.get("name")
    where = f"The throttle of the target {name!r}" if name else "The throttle of a target without a name"
    value = table["throttle"]
    if not isinstance(value, dict) or not value:
        raise ConfigurationError(f'{where}: it is a table such as {{ max_replication_lag = "30 s" }}.')
    return read_throttle(_known(value, THROTTLE_KEYS, f"the throttle of the target {name!r}"), where)


def _thresholds(texts: Any) -> tuple[Threshold, ...]:
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts) or len(texts) > MOST:
        raise ConfigurationError(f"In a [[targets]] table, only_if has to be a list of at most {MOST} texts.")
    return tuple(parse_threshold(text) for text in texts)


def _labels(value: Any, what: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ConfigurationError(f'In the configuration file, {what} are written {{ key = "value" }}.')
    return dict(value)


def _known(content: Mapping[str, Any], keys: frozenset[str], where: str) -> dict[str, Any]:
    known = {key.replace("-", "_"): value for key, value in content.items()}
    for key in known:
        if key not in keys:
            near = difflib.get_close_matches(key, keys, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(keys))}."
            raise ConfigurationError(f"Unknown key {key!r} in {where}: {hint}")
    return known
