import logging
import sys
from enum import StrEnum, auto

import structlog


class LogLevel(StrEnum):
    """From which level on log lines are written."""

    DEBUG = auto()
    INFO = auto()
    WARNING = auto()
    ERROR = auto()


class LogFormat(StrEnum):
    """How log lines are written."""

    CONSOLE = auto()
    JSON = auto()


def set_up_logging(level: LogLevel, form: LogFormat) -> None:
    """Send log lines to stderr: one per event, a constant text with key-values."""
    renderers: dict[LogFormat, list[structlog.typing.Processor]] = {
        # Plain tracebacks: the usual ones show local variables, and with them what should not be logged.
        LogFormat.CONSOLE: [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ],
        LogFormat.JSON: [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()],
    }
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *renderers[form],
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    # What libraries say through the standard library's logging.
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s [%(levelname)s] %(message)s")
