"""Puts deliveries together from frames: frames in, messages out, no I/O and no event loop."""

from __future__ import annotations

from struct import Struct

from ...wire.message import Properties
from .frames import PropertiesDecoder

__all__ = ["Delivered", "DeliveryAssembler"]

#: Class, weight and body size, which a content header begins with.
_CONTENT = Struct(">HHQ")
_CONTENT_SIZE: int = _CONTENT.size

#: A message's delivery tag, body and properties.
Delivered = tuple[int, bytes, Properties]


class DeliveryAssembler:
    """Puts together the deliveries on one channel.

    Each is a ``basic.deliver``, a content header, and frames of the body, until that has the size
    that the header tells. Each method takes a frame whose payload, or what it needs of that, is
    ``data[begin:end]``.

    All raise ``ValueError`` where AMQP has no such frame, or not there. Nothing can be relied upon
    after that.
    """

    def __init__(self) -> None:
        self._decoder = PropertiesDecoder()
        #: The delivery tag of a message whose content header is still to come.
        self._announced: int | None = None
        #: The delivery tag of a message whose body is still to come.
        self._tag = 0
        self._properties = Properties()
        #: What there is of its body, and how many bytes are missing.
        self._parts: list[bytes] = []
        self._missing = 0

    def deliver(self, data: bytes, begin: int, end: int) -> None:
        """Take the arguments of a ``basic.deliver``."""
        if self._missing or self._announced is not None:
            raise ValueError("a basic.deliver within a message")
        at = begin + 1 + data[begin]  # behind the consumer tag
        if at + 8 > end:
            raise ValueError("a basic.deliver without a delivery tag")
        self._announced = int.from_bytes(data[at : at + 8], "big")

    def header(self, data: bytes, begin: int, end: int) -> Delivered | None:
        """Take a content header; return the message if it has no body."""
        tag, self._announced = self._announced, None
        if tag is None:
            raise ValueError("a content header that follows no basic.deliver")
        at = begin + _CONTENT_SIZE
        if at > end:
            raise ValueError("a content header that is cut off")
        _, _, self._missing = _CONTENT.unpack_from(data, begin)
        properties = self._decoder.decode(data[at:end])
        if not self._missing:
            return tag, b"", properties
        self._tag, self._properties = tag, properties
        return None

    def body(self, data: bytes, begin: int, end: int) -> Delivered | None:
        """Take a frame of the body; return the message if it is whole."""
        size = end - begin
        if not 0 < size <= self._missing:
            raise ValueError(f"{size} bytes of a body of which {self._missing} were to come")
        self._missing -= size
        body = data[begin:end]
        if self._missing:
            self._parts.append(body)
            return None
        if self._parts:
            parts, self._parts = self._parts, []
            body = b"".join((*parts, body))
        return self._tag, body, self._properties
