import contextlib
import logging
import sys
from collections.abc import Callable
from io import TextIOBase
from typing import TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure_logs(*, form: str, level: str, redact: Callable[[str], str], stream: TextIO | None = None) -> None:
    """Set up structured logs for the whole process, on stderr.

    Args:
        form: ``console`` for people or ``json`` for programs.
        level: the lowest level that is written.
        redact: masks what must not be logged.
        stream: where the logs go instead.
    """
    stream = stream or sys.stderr
    processors: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _redactor(redact),
        _renderer(form, stream),
    ]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", Unfailing(stream))),
        cache_logger_on_first_use=False,
    )


class Unfailing(TextIOBase):
    """A stream that drops what cannot be written: a broken pipe or a full disk must not stop the work."""

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


def _renderer(form: str, stream: TextIO) -> Processor:
    if form == "json":
        return structlog.processors.JSONRenderer()
    return structlog.dev.ConsoleRenderer(colors=stream.isatty(), pad_event_to=0)


def _redactor(redact: Callable[[str], str]) -> Processor:
    def mask(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {key: redact(value) if isinstance(value, str) else value for key, value in event.items()}

    return mask
