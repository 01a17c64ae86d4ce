from dataclasses import dataclass, field
from enum import StrEnum, auto

from manager_service.config.logging import LogFormat, LogLevel
from manager_service.domain.fleet import Timing
from manager_service.domain.model import SECOND, Span

DEFAULT_LISTEN = "127.0.0.1:7420"
DEFAULT_STORE = "sqlite:///jobs.db"
TEMPORARY_STORE = "temporary"


class StoreSync(StrEnum):
    """How sure a commit of the SQLite store is."""

    FULL = auto()
    NORMAL = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an operator sets; spans are microseconds."""

    listen: str = DEFAULT_LISTEN
    store: str = DEFAULT_STORE
    synchronous: StoreSync = StoreSync.FULL
    store_pooled: bool = False
    store_wait: Span = 60 * SECOND
    retention: Span = 30 * 86_400 * SECOND
    timing: Timing = field(default_factory=Timing)
    shutdown_grace: Span = 5 * SECOND
    log_level: LogLevel = LogLevel.INFO
    log_format: LogFormat = LogFormat.CONSOLE
    insecure: bool = False
    stdin_lifeline: bool = False
