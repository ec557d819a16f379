"""Encodes and decodes AMQP frames of messages, to the bytes that py-amqp reads and writes.

py-amqp is Celery's own client. This is many times as fast as its ``amqp.serialization`` for the
values that Celery's messages have. All other values are left to py-amqp itself.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Iterable, Mapping
from functools import lru_cache, partial
from struct import Struct
from typing import Any

from amqp.basic_message import Message
from amqp.exceptions import AMQPError
from amqp.serialization import decode_properties_basic, dumps

from ...errors import InvalidOption
from ...wire.message import OutgoingMessage, Properties

__all__ = [
    "BODY",
    "FRAME",
    "FRAME_END",
    "HEADER",
    "HEARTBEAT",
    "METHOD",
    "Method",
    "PropertiesDecoder",
    "PropertiesTemplate",
    "PublishEncoder",
    "encode_ack",
    "encode_properties",
    "read_return",
]

#: What every frame begins with: its type, its channel and the size of its payload.
FRAME = Struct(">BHI")
METHOD, HEADER, BODY = 1, 2, 3
FRAME_END = 0xCE
HEARTBEAT = b"\x08\0\0\0\0\0\0\xce"

_END = bytes((FRAME_END,))
#: Bytes of a frame beside its payload.
_OVERHEAD = FRAME.size + len(_END)
_LONG = Struct(">I")
_INTEGER = Struct(">ci")
#: The size of a content header's payload, and what that begins with: class, weight and body size.
_CONTENT = Struct(">IHHQ")
_ACK = Struct(">IQB")
_BASIC = 60


class Method:
    """Methods that concern messages: their classes and numbers, as payloads begin with them."""

    PUBLISH = _BASIC << 16 | 40
    RETURN = _BASIC << 16 | 50
    DELIVER = _BASIC << 16 | 60
    ACK = _BASIC << 16 | 80
    NACK = _BASIC << 16 | 120
    CHANNEL_CLOSE = 20 << 16 | 40


def _method(channel: int, method: int, arguments: bytes) -> bytes:
    return b"".join(
        (FRAME.pack(METHOD, channel, 4 + len(arguments)), _LONG.pack(method), arguments, _END)
    )


def _short(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return bytes((len(data),)) + data


def encode_ack(channel: int, delivery_tag: int) -> bytes:
    """Encode the frame that acknowledges all deliveries up to ``delivery_tag``."""
    payload = _ACK.pack(Method.ACK, delivery_tag, 1)
    return FRAME.pack(METHOD, channel, len(payload)) + payload + _END


class PublishEncoder:
    """Encodes publishes on one channel.

    :param frame_max: bytes that a frame may have at most, or 0 for any number.
    """

    def __init__(self, channel: int, frame_max: int) -> None:
        self._channel = channel
        self._chunk = frame_max - _OVERHEAD if frame_max else 1 << 31
        self._body = FRAME.pack(BODY, channel, 0)[:3]
        self._address = lru_cache(1024)(self._encode_address)

    def _encode_address(self, exchange: str, routing_key: str, mandatory: bool) -> bytes:
        """Encode the publish, and the content header up to the size of its payload."""
        arguments = b"".join((b"\0\0", _short(exchange), _short(routing_key), bytes((mandatory,))))
        publish = _method(self._channel, Method.PUBLISH, arguments)
        return publish + FRAME.pack(HEADER, self._channel, 0)[:3]

    def encode(self, message: OutgoingMessage) -> list[bytes]:
        """Return the frames of a message, in pieces to be written one after the other.

        :raises InvalidOption: AMQP has no type for one of its properties or headers.
        """
        body = message.body
        address = self._address(message.exchange, message.routing_key, message.mandatory)
        properties = message.encoded_properties or encode_properties(message.properties)
        content = _CONTENT.pack(12 + len(properties), _BASIC, 0, len(body))
        if 0 < len(body) <= self._chunk:
            start, size = _END + self._body, _LONG.pack(len(body))
            return [b"".join((address, content, properties, start, size, body, _END))]
        pieces = [address + content + properties + _END]
        for begin in range(0, len(body), self._chunk):
            chunk = body[begin : begin + self._chunk]
            pieces.append(b"".join((self._body, _LONG.pack(len(chunk)), chunk, _END)))
        return pieces


def encode_properties(properties: Mapping[str, Any]) -> bytes:
    """Encode properties as ``amqp.Message`` does; ``headers`` are its ``application_headers``.

    :raises InvalidOption: AMQP has no type for one of them.
    """
    flags = 0
    parts = [b""]
    try:
        for name, flag, encode in _PROPERTIES:
            value = properties.get(name)
            if value is not None:
                flags |= flag
                parts.append(encode(value))
        parts[0] = flags.to_bytes(2, "big")
        return b"".join(parts)
    except (AMQPError, AttributeError, TypeError, ValueError, struct.error) as error:
        raise InvalidOption("headers", f"can't be encoded: {error}") from error


def _short_property(value: Any) -> bytes:
    return _short(value) if type(value) is str else _by_py_amqp("s", value)


def _octet_property(value: Any) -> bytes:
    return bytes((value,)) if type(value) is int else _by_py_amqp("o", value)


def _by_py_amqp(kind: str, value: Any) -> bytes:
    encoded: bytes = dumps(kind, (value,))
    return encoded


def _encoder(kind: str) -> Any:
    ours = {"s": _short_property, "o": _octet_property, "F": _encode_table}
    return ours.get(kind) or partial(_by_py_amqp, kind)


def _encode_table(table: Mapping[str, Any]) -> bytes:
    """Encode a field table as ``amqp.serialization._write_table`` does."""
    encoded = _encode_fields(table.items())
    return _LONG.pack(len(encoded)) + encoded


def _encode_fields(fields: Iterable[tuple[str, Any]]) -> bytes:
    parts: list[bytes] = []
    add = parts.append
    for key, value in fields:
        kind = type(value)
        if value is None:
            add(_field(key, b"V"))
        elif kind is str:
            data = value.encode("utf-8", "surrogatepass")
            add(_field(key, b"S"))
            add(_LONG.pack(len(data)))
            add(data)
        elif kind is int and -0x7FFFFFFF <= value <= 0x7FFFFFFF:
            add(_field(key, _INTEGER.pack(b"I", value)))
        elif kind is bool:
            add(_field(key, b"t\1" if value else b"t\0"))
        elif value == _NO_LIMITS and kind is list:
            add(_field(key, b"A\0\0\0\2VV"))
        elif not value and kind is dict:
            add(_field(key, b"F\0\0\0\0"))
        else:
            add(_by_py_amqp("F", {key: value})[_LONG.size :])
    return b"".join(parts)


#: The ``timelimit`` header of a call without limits.
_NO_LIMITS = [None, None]


@lru_cache(1024)
def _field(key: str, value: bytes) -> bytes:
    data = key.encode("utf-8", "surrogatepass")
    return struct.pack("B", len(data)) + data + value


#: Name, flag and encoder of each property, in the order in which they are encoded.
_PROPERTIES = [
    ("headers" if name == "application_headers" else name, 1 << 15 - index, _encoder(kind))
    for index, (name, kind) in enumerate(Message.PROPERTIES)
]


class PropertiesTemplate:
    """Encodes properties of messages that differ only in ``correlation_id`` and some headers.

    :param properties: the properties of one of the messages.
    :param varying: the headers in which they differ.
    """

    def __init__(self, properties: Mapping[str, Any], varying: Container[str]) -> None:
        headers = properties["headers"]
        #: For each header that differs: its name; the bytes before it; and these followed by its
        #: name and type, for a string and for None.
        self._differing: list[tuple[str, bytes, bytes, bytes]] = []
        alike = b""
        for name, value in headers.items():
            if name in varying:
                either = alike + _field(name, b"S"), alike + _field(name, b"V")
                self._differing.append((name, alike, *either))
                alike = b""
            else:
                alike += _encode_fields([(name, value)])
        self._rest = alike
        before, after = encode_properties(properties).split(_encode_table(headers), 1)
        between, self._after = after.split(_short(properties["correlation_id"]), 1)
        self._before, self._between = before, between

    def encode(self, headers: Mapping[str, Any], correlation_id: str) -> bytes:
        """Encode the properties of another message."""
        fields: list[bytes] = []
        add = fields.append
        for name, before, before_string, before_none in self._differing:
            value = headers[name]
            if type(value) is str:
                data = value.encode("utf-8", "surrogatepass")
                add(before_string)
                add(_LONG.pack(len(data)))
                add(data)
            elif value is None:
                add(before_none)
            else:
                add(before)
                add(_encode_fields([(name, value)]))
        add(self._rest)
        table = b"".join(fields)
        told = self._before, _LONG.pack(len(table)), table, self._between, _short(correlation_id)
        return b"".join((*told, self._after))


class PropertiesDecoder:
    """Decodes properties, and remembers those that many messages have in common.

    Workers send all results with the same properties, except for ``correlation_id``, the last one.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[Any, Any, Any]] = {}

    def decode(self, data: bytes) -> Properties:
        """Decode what follows the body size in a content header.

        Return no properties if they are broken; without them, the body can't be decoded either.
        """
        try:
            return self._decode(data)
        except Exception:  # anybody may have written them
            return _NO_PROPERTIES

    def _decode(self, data: bytes) -> Properties:
        known = self._known.get(data[:-_ID]) if len(data) > _ID and data[-_ID] == _ID - 1 else None
        if known is not None:
            return Properties(*known, data[1 - _ID :].decode())
        found, _ = decode_properties_basic(data, 0)
        properties = Properties(
            found.get("content_type"),
            found.get("content_encoding"),
            found.get("application_headers"),
            found.get("correlation_id"),
        )
        if len(data) <= _LONGEST_KNOWN and self._ends_with_id(data, properties.correlation_id):
            if len(self._known) > 64:
                self._known.clear()
            self._known[data[:-_ID]] = properties[:3]
        return properties

    def _ends_with_id(self, data: bytes, correlation_id: str | None) -> bool:
        """Tell whether the last property is ``correlation_id``, and as long as a task's id."""
        flags = int.from_bytes(data[:2], "big")
        return not flags & _AFTER_ID and len((correlation_id or "").encode()) == _ID - 1


_NO_PROPERTIES = Properties()
#: Bytes of a task's id as a short string, with its length.
_ID = 37
#: Longer properties are not remembered. Those of results have less than a hundred bytes.
_LONGEST_KNOWN = 1024
#: The flags of the properties that follow ``correlation_id``.
_AFTER_ID = 0x03FF


def read_return(arguments: bytes) -> tuple[str, str, str]:
    """Return the reason, the exchange and the routing key in a ``basic.return``."""
    found = []
    at = 2  # behind the reply code
    for _ in range(3):
        begin = at + 1
        at = begin + arguments[at]
        found.append(arguments[begin:at].decode("utf-8", "replace"))
    return found[0], found[1], found[2]
