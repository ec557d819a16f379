"""What a Redis server is told, by its ``MONITOR``."""

from __future__ import annotations

import re
import socket
from types import TracebackType

from .redis_servers import Redis

__all__ = ["Monitor"]

_LINE = re.compile(rb"\+[\d.]+ \[(\d+) (\S+)\] (.*)")
_ARGUMENT = re.compile(rb'"((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(rb"\\(x[0-9a-f]{2}|.)")
_ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b"}


class Monitor:
    """Notes the commands that a server is sent. Those that a script gives are left out."""

    def __init__(self, server: Redis) -> None:
        self._server = server
        self._socket = socket.create_connection(("127.0.0.1", server.port))
        self._socket.sendall(b"MONITOR\r\n")
        self._file = self._socket.makefile("rb")
        assert self._file.readline() == b"+OK\r\n"
        self._marks = 0

    def take(self, db: int) -> list[list[bytes]]:
        """Return the commands since the last time that were for one database."""
        self._marks += 1
        mark = b"mark-%d" % self._marks
        with socket.create_connection(("127.0.0.1", self._server.port)) as marking:
            marking.sendall(b"ECHO %b\r\n" % mark)
            marking.recv(100)
        taken = []
        while True:
            found = _LINE.match(self._file.readline())
            assert found is not None
            command = [_unescaped(each) for each in _ARGUMENT.findall(found[3])]
            if command == [b"ECHO", mark]:
                return taken
            if int(found[1]) == db and found[2] != b"lua":
                taken.append(command)

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()
        self._socket.close()


def _unescaped(argument: bytes) -> bytes:
    def replaced(found: re.Match[bytes]) -> bytes:
        escape = found[1]
        if len(escape) == 3:
            return bytes([int(escape[1:], 16)])
        return _ESCAPES.get(escape, escape)

    return _ESCAPE.sub(replaced, argument)
