"""Redis' protocol, RESP 2: commands to bytes, and bytes to replies. No sockets here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

__all__ = ["ErrorReply", "ProtocolError", "RepliesDecoder", "Reply", "encode"]

#: A reply: None, a number, bytes, an error, or a list of replies.
Reply = Any

#: Bytes of a line that is yet to end, such as an error or a length.
_LONGEST_LINE = 64 * 1024
#: Lists within lists. No command that is used here has a reply of more than three.
_DEEPEST = 32
#: Stands for a reply that was announced and is yet to come.
_MORE: Final = object()


class ProtocolError(Exception):
    """The other side does not speak RESP 2."""


class ErrorReply:
    """An error, as the server has put it: a code, such as ``OOM`` or ``ERR``, and a text."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text: str = text

    @property
    def code(self) -> str:
        """The first word."""
        return self.text.partition(" ")[0]

    def __repr__(self) -> str:
        return f"ErrorReply({self.text!r})"


def encode(commands: Iterable[Sequence[Any]]) -> bytes:
    """Return commands as they are sent.

    :param commands: each a sequence of bytes, texts and numbers, as redis-py takes them.
    :raises UnicodeEncodeError: a text is not fit for UTF-8.
    :raises TypeError: an argument is none of that.
    """
    parts: list[bytes] = []
    for command in commands:
        parts.append(b"*%d\r\n" % len(command))
        for argument in command:
            data = argument if type(argument) is bytes else _encoded(argument)
            parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


def _encoded(argument: Any) -> bytes:
    if isinstance(argument, str):
        return argument.encode()
    if isinstance(argument, (bytes, bytearray, memoryview)):
        return bytes(argument)
    if isinstance(argument, (int, float)) and not isinstance(argument, bool):
        return repr(argument).encode()
    raise TypeError(f"Redis takes bytes, texts and numbers, not {type(argument).__name__}")


class RepliesDecoder:
    """Reads replies off a stream of bytes, however that is cut into pieces."""

    def __init__(self) -> None:
        self._data: bytes | bytearray = b""
        #: The length of the bytes that come next; None where a line comes next.
        self._length: int | None = None
        #: Lists that are yet to be complete, outermost first: how many replies each still lacks.
        self._open: list[tuple[list[Reply], int]] = []

    def feed(self, data: bytes) -> list[Reply]:
        """Return the replies that are complete with this.

        :raises ProtocolError: this is not RESP 2. The decoder is of no more use.
        """
        if self._data:
            assert isinstance(self._data, bytearray)
            self._data += data
        else:
            self._data = data
        replies: list[Reply] = []
        rest = self._decode(self._data, replies)
        if rest == len(self._data):
            self._data = b""
        elif isinstance(self._data, bytearray):
            del self._data[:rest]
        else:
            self._data = bytearray(data[rest:])
        return replies

    def _decode(self, data: bytes | bytearray, replies: list[Reply]) -> int:
        """Decode what is complete; return where the rest begins."""
        at, size = 0, len(data)
        while at < size:
            if self._length is not None:
                end = at + self._length
                if size < end + 2:
                    break
                value: Reply = _bulk(data, at, end)
                self._length = None
            else:
                end = data.find(b"\r\n", at)
                if end < 0:
                    if size - at > _LONGEST_LINE:
                        raise ProtocolError("a line without an end")
                    break
                value = self._line(data[at], data[at + 1 : end])
            at = end + 2
            if value is _MORE:
                continue
            if self._open:
                self._add(value, replies)
            else:
                replies.append(value)
        return at

    def _line(self, kind: int, line: bytes | bytearray) -> Reply:
        """Return the reply that a line is; ``_MORE`` where it announces one."""
        if kind == 0x3A:  # :
            return _number(line)
        if kind == 0x24:  # $
            self._length = _length(line)
            return None if self._length is None else _MORE
        if kind == 0x2A:  # *
            count = _length(line)
            if not count:
                return None if count is None else []
            if len(self._open) == _DEEPEST:
                raise ProtocolError("lists too deep")
            self._open.append(([], count))
            return _MORE
        if kind == 0x2B:  # +
            return bytes(line)
        if kind == 0x2D:  # -
            return ErrorReply(line.decode(errors="replace"))
        raise ProtocolError(f"a reply that begins with {chr(kind)!r}")

    def _add(self, value: Reply, replies: list[Reply]) -> None:
        """Add a reply to the innermost list, and that to its own where it is complete."""
        while self._open:
            items, missing = self._open[-1]
            items.append(value)
            if missing > 1:
                self._open[-1] = items, missing - 1
                return
            self._open.pop()
            value = items
        replies.append(value)


def _bulk(data: bytes | bytearray, at: int, end: int) -> bytes:
    if data[end : end + 2] != b"\r\n":
        raise ProtocolError("bytes that are longer than announced")
    if isinstance(data, bytes):
        return data[at:end]
    with memoryview(data) as view:  # slicing a bytearray would copy once more
        return bytes(view[at:end])


def _number(line: bytes | bytearray) -> int:
    try:
        return int(line)
    except ValueError:
        raise ProtocolError(f"no number: {bytes(line[:20])!r}") from None


def _length(line: bytes | bytearray) -> int | None:
    """Read how long something is; None where it is nothing."""
    length = _number(line)
    if length < -1:
        raise ProtocolError(f"a length of {length}")
    return None if length == -1 else length
