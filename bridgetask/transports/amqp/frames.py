"""Encodes and decodes AMQP frames of messages, to the bytes that py-amqp reads and writes.

py-amqp is Celery's own client. This is many times as fast as its ``amqp.serialization`` for the
values that Celery's messages have. All other values are left to py-amqp itself.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import Any

from amqp.serialization import decode_properties_basic

from ...wire.message import OutgoingMessage, Properties
from .properties import PropertiesEncoder, short_string

__all__ = [
    "BODY",
    "FRAME",
    "FRAME_END",
    "HEADER",
    "HEARTBEAT",
    "METHOD",
    "Method",
    "PropertiesDecoder",
    "PublishEncoder",
    "encode_ack",
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
        self._properties = PropertiesEncoder()
        self._address = lru_cache(1024)(self._encode_address)

    def _encode_address(self, exchange: str, routing_key: str, mandatory: bool) -> bytes:
        """Encode the publish, and the content header up to the size of its payload."""
        arguments = b"".join(
            (b"\0\0", short_string(exchange), short_string(routing_key), bytes((mandatory,)))
        )
        publish = _method(self._channel, Method.PUBLISH, arguments)
        return publish + FRAME.pack(HEADER, self._channel, 0)[:3]

    def encode(self, message: OutgoingMessage) -> list[bytes]:
        """Return the frames of a message, in pieces to be written one after the other.

        :raises InvalidOption: AMQP has no type for one of its properties or headers.
        """
        body = message.body
        address = self._address(message.exchange, message.routing_key, message.mandatory)
        properties = self._properties.encode(message)
        content = _CONTENT.pack(12 + len(properties), _BASIC, 0, len(body))
        if 0 < len(body) <= self._chunk:
            start, size = _END + self._body, _LONG.pack(len(body))
            return [b"".join((address, content, properties, start, size, body, _END))]
        pieces = [address + content + properties + _END]
        for begin in range(0, len(body), self._chunk):
            chunk = body[begin : begin + self._chunk]
            pieces.append(b"".join((self._body, _LONG.pack(len(chunk)), chunk, _END)))
        return pieces


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
