"""What an operator sets, read once at the top and handed down as values."""

from manager_service.config.logging import LogFormat, LogLevel, set_up_logging
from manager_service.config.settings import TEMPORARY_STORE, Settings, StoreSync
from manager_service.config.spans import parse_span, show_span
from manager_service.config.toml import read_defaults
from manager_service.config.verify import InvalidSettingsError, is_loopback, verify

__all__ = [
    "TEMPORARY_STORE",
    "InvalidSettingsError",
    "LogFormat",
    "LogLevel",
    "Settings",
    "StoreSync",
    "is_loopback",
    "parse_span",
    "read_defaults",
    "set_up_logging",
    "show_span",
    "verify",
]
