import os
import signal


class Terminal:
    """The terminal that this process was started at, if any; made when the process starts.

    SIGHUP says that a terminal is gone, and by custom also that a service is to read its configuration again.
    """

    def __init__(self) -> None:
        # Who starts a program with nohup wants it to outlive the terminal.
        self._bound = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and _is_there()

    def hung_up(self) -> bool:
        """Tell whether the terminal is gone and this process is to end with it."""
        return self._bound and not _is_there()


def _is_there() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
