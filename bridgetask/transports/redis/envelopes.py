"""What many messages' ``LPUSH`` have in common, kept as bytes.

kombu's channel takes some 40 µs to say a message, most of it for JSON that is the same in all calls
of a task. So what kombu said for one message of a template is cut where others differ. It is used
only where that gives what kombu gave; and now and then, kombu is asked again.
"""

from __future__ import annotations

import logging
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from json.encoder import encode_basestring_ascii
from typing import Any
from uuid import uuid4
from weakref import WeakKeyDictionary

from kombu.utils.json import dumps, loads

from ...wire.message import OutgoingMessage, TemplateId
from .resp import encode

__all__ = ["Envelopes"]

logger: logging.Logger = logging.getLogger(__name__)

_UNSEEN: Any = object()
#: After so many uses what is kept is compared with kombu's own words.
_COMPARED_EVERY = 10_000

Command = Sequence[Any]


class Envelopes:
    """Writes the messages of templates to queues, from what it keeps of each template.

    :param publish: returns the commands that publish a message, by kombu's own code.
    """

    def __init__(self, publish: Callable[[OutgoingMessage], Sequence[Command]]) -> None:
        self._publish = publish
        #: None where a message is more than one ``LPUSH``.
        self._known: WeakKeyDictionary[TemplateId, Any] = WeakKeyDictionary()

    def encode(self, message: OutgoingMessage) -> bytes | None:
        """Return the command that publishes a message; None where kombu has to be asked."""
        template = message.template
        if template is None or message.exchange:
            return None
        common: _CommonEnvelope | None = self._known.get(template, _UNSEEN)
        if common is _UNSEEN:
            common = self._known[template] = self._learn(message)
        if common is None:
            return None
        common.uses += 1
        if common.uses > _COMPARED_EVERY:
            common.uses = 0
            if not self._is_right(common, message):
                logger.warning(
                    "kombu says messages of %s in other words than it did before",
                    message.properties["headers"].get("task"),
                )
                self._known[template] = None
                return None
        return common.encode(message)

    def forget(self) -> None:
        """Forget everything: what was declared may make a difference."""
        self._known.clear()

    def _learn(self, message: OutgoingMessage) -> _CommonEnvelope | None:
        """Return what the messages of a template have in common, if they are like this one."""
        assert message.template is not None
        marks = _Marks(message, message.template.varying)
        try:
            [(verb, key, envelope)] = self._publish(marks.marked)
            common = _CommonEnvelope(key, envelope, marks)
        except ValueError:  # it is more than one command, or other than was thought
            return None
        return common if verb == "LPUSH" and self._is_right(common, message) else None

    def _is_right(self, common: _CommonEnvelope, message: OutgoingMessage) -> bool:
        """Tell whether what is kept gives what kombu gives now."""
        commands = self._publish(message)
        if len(commands) != 1:
            return False
        tag = loads(commands[0][-1])["properties"].get("delivery_tag")
        return common.encode(message, tag) == encode(commands)


class _Marks:
    """A message like another one, with marks in place of what others have of their own."""

    def __init__(self, message: OutgoingMessage, varying: frozenset[str]) -> None:
        properties = dict(message.properties)
        headers = dict(properties["headers"])
        #: By the header's name: the mark in its place.
        self.headers = {name: f"header {uuid4()}" for name in headers if name in varying}
        self.correlation_id = f"correlation {uuid4()}"
        self.body = str(uuid4()).encode()
        properties["headers"] = headers | self.headers
        properties["correlation_id"] = self.correlation_id
        self.marked = OutgoingMessage(
            message.exchange, message.routing_key, self.body, properties, template=message.template
        )


class _CommonEnvelope:
    """The envelope of a message, cut where others differ.

    :raises ValueError: that can't be told.
    """

    def __init__(self, key: str, envelope: str, marks: _Marks) -> None:
        self.uses = 0
        #: How many headers there are.
        self._headers = len(marks.marked.properties["headers"])
        before, rest = _cut(envelope, b64encode(marks.body).decode())
        pieces = [before]
        #: The headers that differ, in their order.
        self._differing: list[str] = []
        for name in marks.marked.properties["headers"]:
            if name in marks.headers:
                piece, rest = _cut(rest, dumps(marks.headers[name]))
                pieces.append(piece)
                self._differing.append(name)
        piece, rest = _cut(rest, dumps(marks.correlation_id))
        tag = loads(envelope)["properties"]["delivery_tag"]
        pieces += piece, *_cut(rest, tag)
        self._body, *self._before_headers, self._before_id, self._before_tag, self._after = (
            piece.encode() for piece in pieces
        )
        self._command = encode([("LPUSH", key, b"")])[: -len(b"$0\r\n\r\n")]

    def encode(self, message: OutgoingMessage, tag: str | None = None) -> bytes | None:
        """Return the command for another message; None for one that has other headers.

        :param tag: the tag of its delivery, a new one unless given.
        """
        properties = message.properties
        headers: Mapping[str, Any] = properties["headers"]
        if len(headers) != self._headers:
            return None
        parts = [self._body, b64encode(message.body)]
        add = parts.append
        for before, name in zip(self._before_headers, self._differing, strict=True):
            value = headers[name]
            add(before)
            if type(value) is str:
                add(encode_basestring_ascii(value).encode())
            else:
                add(b"null" if value is None else dumps(value).encode())
        add(self._before_id)
        add(encode_basestring_ascii(properties["correlation_id"]).encode())
        add(self._before_tag)
        add((tag or str(uuid4())).encode())
        add(self._after)
        envelope = b"".join(parts)
        return b"%b$%d\r\n%b\r\n" % (self._command, len(envelope), envelope)


def _cut(text: str, mark: str) -> tuple[str, str]:
    """Return what comes before a mark, and what comes after it.

    :raises ValueError: it is not there, or more than once.
    """
    before, after = text.split(mark)
    return before, after
