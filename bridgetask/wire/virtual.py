"""Messages as kombu's virtual transports have them: JSON, with the body and all else in it."""

from __future__ import annotations

from base64 import b64decode
from dataclasses import dataclass
from typing import Any

from kombu.utils.json import loads

from .message import OutgoingMessage, Properties
from .producer import RecordingChannel

__all__ = ["Envelope", "VirtualRecordingChannel", "raw_message"]

#: What kombu's envelopes begin with. A body in base 64 ends at the next quotation mark.
_BODY = b'{"body": "'
#: Bytes of base 64 that are decoded at once: a multiple of four.
_PIECE = 1024 * 1024
#: What is added to properties for those who ask for it there; kombu has it beside them.
_BESIDE = ("content_type", "content_encoding", "headers")


class VirtualRecordingChannel(RecordingChannel):
    """The calls that kombu makes on a virtual channel, kept instead of made."""

    default_priority = 0

    def prepare_message(
        self,
        body: Any,
        priority: int | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
        headers: dict[str, Any] | None = None,
        properties: dict[str, Any] | None = None,
    ) -> tuple[bytes, dict[str, Any]]:
        """Follow ``virtual.Channel.prepare_message``, which keeps all properties."""
        known = dict(properties or {})
        known.setdefault("delivery_info", {})
        known.setdefault("priority", priority or self.default_priority)
        known |= zip(_BESIDE, (content_type, content_encoding, headers or {}), strict=True)
        return (body.encode() if isinstance(body, str) else bytes(body)), known


def raw_message(message: OutgoingMessage, *, as_text: bool = False) -> dict[str, Any]:
    """Return a message as kombu's virtual channels publish it, which add to it.

    :param as_text: whether the channel does not encode bodies, so that text has to be text.
    """
    properties = dict(message.properties)
    content_type, content_encoding, headers = (properties.pop(name, None) for name in _BESIDE)
    properties["delivery_info"] = dict(properties.get("delivery_info") or {})
    body: bytes | str = message.body
    if as_text and content_encoding != "binary" and not (headers or {}).get("compression"):
        body = message.body.decode()
    return {
        "body": body,
        "content-encoding": content_encoding,
        "content-type": content_type,
        "headers": headers or {},
        "properties": properties,
    }


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message as a virtual transport has stored or published it."""

    properties: Properties
    #: The body, as it is encoded.
    encoded: bytes
    _is_base64: bool

    @classmethod
    def of(cls, data: bytes) -> Envelope:
        """Read a message, but for its body.

        :raises ValueError: this is none.
        """
        if data.startswith(_BODY):
            # Base 64 needs no escapes. Bodies may be large, and JSON would make text of them first.
            end = data.find(b'"', len(_BODY))
            raw = _loaded(_BODY + data[end:])
            if raw["properties"].get("body_encoding") == "base64":
                return cls(_properties(raw), data[len(_BODY) : end], True)
        raw = _loaded(data)
        body = raw.get("body")
        body = body.encode() if isinstance(body, str) else body
        if not isinstance(body, bytes):
            raise ValueError("the body is missing")
        return cls(_properties(raw), body, raw["properties"].get("body_encoding") == "base64")

    def body(self) -> bytes:
        """Return the body.

        Other threads have their turn meanwhile, however long it is.

        :raises ValueError: it is not what it says to be.
        """
        if not self._is_base64:
            return self.encoded
        if len(self.encoded) <= _PIECE:
            return b64decode(self.encoded)
        pieces = range(0, len(self.encoded), _PIECE)
        return b"".join(b64decode(self.encoded[at : at + _PIECE]) for at in pieces)


def _loaded(data: bytes) -> dict[str, Any]:
    try:
        raw = loads(data)
    except RecursionError:
        raise ValueError("JSON that is too deep") from None
    if not isinstance(raw, dict) or not isinstance(raw.get("properties"), dict):
        raise ValueError("no message of kombu's")
    return raw


def _properties(raw: dict[str, Any]) -> Properties:
    headers = raw.get("headers")
    return Properties(
        _text(raw.get("content-type")),
        _text(raw.get("content-encoding")),
        headers if isinstance(headers, dict) else None,
        _text(raw["properties"].get("correlation_id")),
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
