"""The driver, loaded with this module alone: who maintains no MariaDB need not have it."""

import socket
import ssl
from functools import cache
from typing import Any

import pymysql
from pymysql.connections import Connection

ERRORS = (pymysql.MySQLError, OSError)
# A server may be set to cut every answer short, and a catalogue that was cut would be believed.
_WHOLE_ANSWERS = "SET SESSION sql_select_limit = 18446744073709551615"
_PROBES = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
# So long what was sent may stay without an answer of the other side's system, also on a connection that was kept.
_UNANSWERED_MS = 60_000
_OWN_CONTEXT = "_create_ssl_ctx"
_its_own: Any = getattr(Connection, _OWN_CONTEXT, None)


@cache
def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _context(connection: Any, options: Any) -> Any:
    return _its_own(connection, options) if options else _unverified()


# Where the URL asks for nothing about TLS the driver encrypts if the server can, and verifies nothing. For that it
# reads all certificates of the machine anew for each connection, which takes 30 ms and serves no purpose.
_LightConnection: Any = type("LightConnection", (Connection,), {_OWN_CONTEXT: _context} if _its_own else {})


def connect(arguments: dict[str, Any]) -> Any:
    """Connect, in autocommit.

    Raises:
        pymysql.MySQLError: the server cannot be reached, or refuses.
        RuntimeError: a way to log in needs the package `cryptography`, which is not installed.
        OSError, ValueError: an argument is of no use to the driver.
    """
    connection = _LightConnection(autocommit=True, charset="utf8mb4", init_command=_WHOLE_ANSWERS, **arguments)
    _probe(getattr(connection, "_sock", None))
    return connection


def descriptor(connection: Any) -> int:
    """Return the file descriptor of a connection, -1 where it has ended."""
    line = getattr(connection, "_sock", None)
    return -1 if line is None else int(line.fileno())


def _probe(line: Any) -> None:
    """Let a statement that waits for hours notice within a minute that the server's host is gone."""
    if line is None or line.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNANSWERED_MS)
    for name, value in _PROBES.items():
        if hasattr(socket, name):  # not every system lets a program choose them
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
