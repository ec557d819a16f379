"""Properties of messages in AMQP's own form: the bytes that py-amqp, Celery's own client, writes.

This does for the messages that Celery sends what ``amqp.serialization`` does for all that AMQP
knows, many times as fast. What is out of the ordinary is left to py-amqp itself.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Container, Iterable, Mapping
from contextlib import suppress
from functools import lru_cache, partial
from struct import Struct
from typing import Any
from weakref import WeakKeyDictionary

from amqp.basic_message import Message
from amqp.exceptions import AMQPError
from amqp.serialization import dumps

from ...errors import InvalidOption
from ...wire.message import OutgoingMessage, TemplateId

__all__ = ["PropertiesEncoder", "encode_properties", "short_string"]

_UNSEEN: Any = object()
_LONG = Struct(">I")
_INTEGER = Struct(">ci")
#: What is raised for values that AMQP has no type for, or no room; and where one is missing.
_UNENCODABLE = (AMQPError, AttributeError, KeyError, TypeError, ValueError, struct.error)


class PropertiesEncoder:
    """Encodes the properties of messages, those that templates have in common once.

    What it keeps of a template goes when the template does.
    """

    def __init__(self) -> None:
        #: None where the properties have more of their own.
        self._known: WeakKeyDictionary[TemplateId, Any] = WeakKeyDictionary()

    def encode(self, message: OutgoingMessage) -> bytes:
        """Return the flags and the properties of a message.

        :raises InvalidOption: there is one that AMQP has no type for.
        """
        template = message.template
        if template is not None:
            common: _CommonProperties | None = self._known.get(template, _UNSEEN)
            if common is _UNSEEN:
                return self._learn(template, message)
            try:
                if common is not None and len(message.properties["headers"]) == common.headers:
                    return common.encode(message.properties)
            except _UNENCODABLE:  # which is told below
                pass
        return encode_properties(message.properties)

    def _learn(self, template: TemplateId, message: OutgoingMessage) -> bytes:
        """Encode the first message of a template, and keep what others have in common with it."""
        encoded = encode_properties(message.properties)
        self._known[template] = None
        with suppress(*_UNENCODABLE):
            common = _CommonProperties(message.properties, template.varying)
            if common.encode(message.properties) == encoded:
                self._known[template] = common
        return encoded


class _CommonProperties:
    """What the properties of many messages have in common, encoded.

    They differ in ``correlation_id`` and some headers alone.

    :param properties: those of one message.
    :param varying: the headers that differ.
    """

    def __init__(self, properties: Mapping[str, Any], varying: Container[str]) -> None:
        #: How many headers there are.
        self.headers = len(properties["headers"])
        #: For each header that differs: its name; and what comes before it, with its own name and
        #: type if it is a string, and if it is None.
        self._differing: list[tuple[str, bytes, bytes, bytes]] = []
        alike = b""
        for name, value in properties["headers"].items():
            if name in varying:
                either = alike + _field(name, b"S"), alike + _field(name, b"V")
                self._differing.append((name, alike, *either))
                alike = b""
            else:
                alike += _encode_fields([(name, value)])
        self._rest = alike
        flags = at = 0
        encoded = [b"", b"", b""]
        for name, flag, encode in _PROPERTIES:
            value = properties.get(name)
            if value is not None:
                flags |= flag
                if name in ("headers", "correlation_id"):
                    at += 1
                else:
                    encoded[at] += encode(value)
        before, self._between, self._after = encoded
        self._before = flags.to_bytes(2, "big") + before

    def encode(self, properties: Mapping[str, Any]) -> bytes:
        """Encode the properties of another message."""
        headers = properties["headers"]
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
        return b"".join(
            (
                self._before,
                _LONG.pack(len(table)),
                table,
                self._between,
                short_string(properties["correlation_id"]),
                self._after,
            )
        )


def encode_properties(properties: Mapping[str, Any]) -> bytes:
    """Encode properties as ``amqp.Message`` does; ``headers`` are its ``application_headers``.

    :raises InvalidOption: there is one that AMQP has no type for.
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
    except _UNENCODABLE as error:
        raise InvalidOption("headers", f"can't be encoded: {error}") from error


def short_string(text: str) -> bytes:
    """Encode a string of up to 255 bytes.

    :raises ValueError: it is longer.
    """
    data = text.encode("utf-8", "surrogatepass")
    return bytes((len(data),)) + data


def _short_property(value: Any) -> bytes:
    return short_string(value) if type(value) is str else _by_py_amqp("s", value)


def _octet_property(value: Any) -> bytes:
    return bytes((value,)) if type(value) is int else _by_py_amqp("o", value)


def _by_py_amqp(kind: str, value: Any) -> bytes:
    encoded: bytes = dumps(kind, (value,))
    return encoded


def _encoder(kind: str) -> Callable[[Any], bytes]:
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


#: The time limits of a call that has none.
_NO_LIMITS = [None, None]


@lru_cache(1024)
def _field(key: str, value: bytes) -> bytes:
    data = key.encode("utf-8", "surrogatepass")
    return struct.pack("B", len(data)) + data + value


#: The name, the flag and the encoder of each property, in their order.
_PROPERTIES = [
    ("headers" if name == "application_headers" else name, 1 << 15 - index, _encoder(kind))
    for index, (name, kind) in enumerate(Message.PROPERTIES)
]
