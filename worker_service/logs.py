import asyncio
import threading
from collections import deque
from collections.abc import Callable
from datetime import datetime

from worker_service.domain.manager import LogAnswer, LogBatch, LogLine

BUFFERED_LINES = 10_000
BATCH_LINES = 1_000
BATCH_BYTES = 1 << 20
LINE_BYTES = 8_192
_LEVELS = frozenset({"debug", "info", "warning", "error"})


class LogStream:
    """The log of one attempt on its way to the manager: written by the operation's thread, sent by the loop.

    Lines keep their order; a full buffer drops what comes and a line in its place tells how many.

    Args:
        child_job_id: the child job.
        lease_id: the fencing token.
        attempt: the attempt's number.
        now: tells the time a line is written.
        redact: masks what must not leave the process.
    """

    def __init__(
        self,
        *,
        child_job_id: str,
        lease_id: str,
        attempt: int,
        now: Callable[[], datetime],
        redact: Callable[[str], str] = str,
    ) -> None:
        self._ids = (child_job_id, lease_id, attempt)
        self._now = now
        self._redact = redact
        self._lines: deque[LogLine] = deque()
        self._dropped = 0
        self._offset = 0
        self._closed = False
        self._guard = threading.Lock()
        self.sending = asyncio.Lock()

    @property
    def pending(self) -> bool:
        """Whether there are lines that the manager does not have yet."""
        return bool(self._lines or self._dropped)

    def write(self, level: str, message: str) -> None:
        """Append the message, one entry per line of it; an unknown level is taken as ``info``."""
        level = level if level in _LEVELS else "info"
        time = self._now()
        for text in self._redact(message).splitlines() or [""]:
            self._append(LogLine(time=time, level=level, message=_cut(text)))

    def batch(self) -> LogBatch | None:
        """Return the lines to send next, which stay here until ``stored``; ``None`` when there are none."""
        with self._guard:
            if self._dropped and not self._lines:
                self._note_dropped()
            lines = _head(self._lines)
        child_job_id, lease_id, attempt = self._ids
        if not lines:
            return None
        return LogBatch(
            child_job_id=child_job_id, lease_id=lease_id, attempt=attempt, offset=self._offset, lines=lines
        )

    def stored(self, batch: LogBatch, answer: LogAnswer) -> None:
        """Take away what the manager has; the log of a lost lease ends here."""
        if answer.lost:
            self.close()
            return
        with self._guard:
            for _ in range(min(len(batch.lines), len(self._lines))):
                self._lines.popleft()
            self._offset = answer.next_offset

    def resume_at(self, next_offset: int) -> None:
        """Go on where the manager's log ends: it does not have lines that it once took."""
        with self._guard:
            missing = self._offset - next_offset
            self._offset = next_offset
            self._lines.appendleft(self._note(f"{missing} lines before this one were lost"))

    def close(self) -> None:
        """Forget the waiting lines and take no more."""
        with self._guard:
            self._closed = True
            self._lines.clear()
            self._dropped = 0

    def _append(self, line: LogLine) -> None:
        with self._guard:
            if self._closed:
                return
            if len(self._lines) >= BUFFERED_LINES:
                self._dropped += 1
                return
            if self._dropped:
                self._note_dropped()
            self._lines.append(line)

    def _note_dropped(self) -> None:
        self._lines.append(self._note(f"{self._dropped} lines dropped: they came faster than they could be sent"))
        self._dropped = 0

    def _note(self, message: str) -> LogLine:
        return LogLine(time=self._now(), level="warning", message=message)


def _head(lines: deque[LogLine]) -> tuple[LogLine, ...]:
    """Return the first lines that fit one call; at least one when there is any."""
    head: list[LogLine] = []
    size = 0
    for line in lines:
        size += len(line.message)
        if len(head) == BATCH_LINES or (head and size > BATCH_BYTES):
            break
        head.append(line)
    return tuple(head)


def _cut(text: str) -> str:
    """Shorten the text to what one entry may hold, never within a character."""
    data = text.encode(errors="replace")
    return text if len(data) <= LINE_BYTES else data[:LINE_BYTES].decode(errors="ignore")
