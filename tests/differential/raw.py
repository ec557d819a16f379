"""Messages as they are in RabbitMQ: byte by byte, each field with its AMQP type and in its order.

No AMQP library tells of the types and the order that a field table came with, and these are what
shows who has encoded it. RabbitMQ hands on the properties of a message as they came.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote, urlsplit

import amqp
from amqp import spec
from amqp.method_framing import frame_handler

__all__ = ["Field", "Fields", "RawMessage", "RawQueues"]

#: The properties of a message, in the order of their bits in the flags: name, type.
_PROPERTIES = (
    ("content_type", "shortstr"),
    ("content_encoding", "shortstr"),
    ("headers", "F"),
    ("delivery_mode", "octet"),
    ("priority", "octet"),
    ("correlation_id", "shortstr"),
    ("reply_to", "shortstr"),
    ("expiration", "shortstr"),
    ("message_id", "shortstr"),
    ("timestamp", "T"),
    ("type", "shortstr"),
    ("user_id", "shortstr"),
    ("app_id", "shortstr"),
    ("cluster_id", "shortstr"),
)
#: The types of fields with a size of their own: how ``struct`` reads them.
_FIXED = {
    "octet": "B",
    "t": "?",
    "b": "b",
    "B": "B",
    "s": "h",
    "u": "H",
    "I": "i",
    "i": "I",
    "l": "q",
    "L": "q",
    "f": "f",
    "d": "d",
    "T": "Q",
    "D": "5s",
}
_CONTENT_HEADER = 2

#: The name of a field, its AMQP type, and its value: bytes, numbers, or further fields.
Field = tuple[str, str, Any]
Fields = tuple[Field, ...]


@dataclass(frozen=True)
class RawMessage:
    """All of a message."""

    exchange: str
    routing_key: str
    properties: Fields
    body: bytes

    @property
    def header_fields(self) -> Fields:
        """The headers, in their order."""
        found = next((value for name, _, value in self.properties if name == "headers"), ())
        fields: Fields = found
        return fields

    @property
    def headers(self) -> dict[str, Any]:
        """The headers' names and undecoded values."""
        return {name: value for name, _, value in self.header_fields}

    def property(self, name: str) -> Any:
        """Return a property's value, or None."""
        return next((value for each, _, value in self.properties if each == name), None)

    def without_property(self, name: str) -> RawMessage:
        """Return the message without one of its properties."""
        return replace(self, properties=tuple(p for p in self.properties if p[0] != name))

    def with_bytes(self, substitute: Callable[[bytes], bytes]) -> RawMessage:
        """Return the message with all its texts and its body substituted."""

        def substituted(value: Any) -> Any:
            if isinstance(value, bytes):
                return substitute(value)
            if isinstance(value, tuple):
                return tuple(substituted(each) for each in value)
            return value

        return replace(self, properties=substituted(self.properties), body=substitute(self.body))


class _Reader:
    """Reads AMQP's encodings off a buffer."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        assert len(taken) == size
        self._at += size
        return taken

    def number(self, layout: str) -> Any:
        (number,) = struct.unpack(f">{layout}", self.take(struct.calcsize(f">{layout}")))
        return number

    def value(self, kind: str) -> Any:
        """Read a value of an AMQP type."""
        if kind == "V":
            return None
        if kind == "shortstr":
            return self.take(self.number("B"))
        if kind in _FIXED:
            return self.number(_FIXED[kind])
        content = self.take(self.number("I"))
        if kind in "Sx":
            return content
        inner = _Reader(content)
        return tuple(inner.fields(named=kind == "F"))

    def fields(self, *, named: bool) -> Iterator[Field]:
        """Read the fields of a table, or the elements of an array."""
        while self.left:
            name = self.take(self.number("B")).decode() if named else ""
            kind = self.take(1).decode()
            yield name, kind, self.value(kind)

    def properties(self) -> Fields:
        """Read the flags and the properties of a content header."""
        flags = self.number("H")
        assert not flags & 0b11
        found = tuple(
            (name, kind, self.value(kind))
            for bit, (name, kind) in enumerate(_PROPERTIES)
            if flags & (0x8000 >> bit)
        )
        assert not self.left
        return found


class RawQueues:
    """Consumes queues of a RabbitMQ over a connection of its own, and keeps the messages raw.

    Consuming, rather than getting, also takes what expires when it reaches a queue.
    """

    def __init__(self, broker_url: str) -> None:
        url = urlsplit(broker_url)
        self._content_headers: list[bytes] = []
        self._taken: dict[str, list[RawMessage]] = {}
        self._watched: set[str] = set()
        self._connection: Any = amqp.Connection(
            f"{url.hostname}:{url.port}",
            unquote(url.username or ""),
            unquote(url.password or ""),
            virtual_host=unquote(url.path[1:]) or "/",
            frame_handler=self._frame_handler,
        )
        self._connection.connect()
        self._channel = self._connection.channel()

    def watch(self, queue: str) -> None:
        """Consume a queue from now on."""
        self._channel.basic_consume(queue, queue, no_ack=True, callback=self._on_message)
        self._watched.add(queue)

    def take(self) -> dict[str, list[RawMessage]]:
        """Return what came since the last time, by queue.

        What a broker has confirmed before is in it. A queue confirms a message, then hands it to
        this channel; once it has answered a question, it has. And this channel sends us what it was
        handed before it answers another one.
        """
        for queue in self._watched:  # all questions at once; py-amqp drops their answers
            asked = (0, queue, True, False, False, False, False, {})
            self._channel.send_method(spec.Queue.Declare, "BsbbbbbF", asked)
        self._channel.basic_qos(0, 0, False)
        taken, self._taken = self._taken, {}
        return taken

    def delete(self, queue: str) -> None:
        """Delete a queue, if it is there."""
        self._watched.discard(queue)
        self._channel.basic_cancel(queue)  # to be watched or not is the same to the broker
        self._channel.queue_delete(queue)

    def close(self) -> None:
        self._connection.close()

    def _frame_handler(self, connection: Any, callback: Any) -> Any:
        handle = frame_handler(connection, callback)

        def keep_content_headers(frame: tuple[int, int, Any]) -> Any:
            kind, _, payload = frame
            if kind == _CONTENT_HEADER:
                self._content_headers.append(bytes(payload))
            return handle(frame)

        return keep_content_headers

    def _on_message(self, message: Any) -> None:
        delivery, body = message.delivery_info, message.body
        content_header = self._content_headers.pop()
        raw = RawMessage(
            delivery["exchange"],
            delivery["routing_key"],
            _Reader(content_header[12:]).properties(),
            body.encode() if isinstance(body, str) else bytes(body),
        )
        self._taken.setdefault(delivery["consumer_tag"], []).append(raw)
