import contextlib
import logging
import sys
from enum import StrEnum, auto
from io import TextIOBase
from typing import TextIO, cast

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


class Unfailing(TextIOBase):
    """A stream that drops what cannot be written: a broken pipe or a full disk must not stop the service."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text, or drop it."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush what can be flushed."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


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
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", Unfailing(sys.stderr))),
        cache_logger_on_first_use=True,
    )
    # What libraries say through the standard library's logging.
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s [%(levelname)s] %(message)s")
