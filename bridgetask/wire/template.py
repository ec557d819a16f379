"""A template: it makes the message of a call again, with other ids and arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from celery.utils.saferepr import saferepr

from .dependencies import Dependencies, NoTemplate
from .message import OutgoingMessage, TemplateId
from .observing import Published
from .plain_repr import plain_repr
from .producer import RecordingProducer

__all__ = ["Template", "differences"]

#: The headers that differ from call to call. ``compression`` is there if the body is compressed.
_VARYING = frozenset(
    {"id", "root_id", "parent_id", "group", "group_index", "argsrepr", "kwargsrepr", "compression"}
)
_LEVELS = "task_repr_maxlevels"


class Template:
    """The message that Celery's code made for a call, and what it depends on.

    :param published: what kombu was asked to publish for the call, and the message.
    :param options: the options of the call.
    :param settings: the settings that Celery's code read for it.
    :param ignored: the attribute ``ignored`` of Celery's result.
    :raises NoTemplate: the message can't be made again.
    """

    __slots__ = (
        "compression",
        "dependencies",
        "embedded",
        "headers",
        "identity",
        "ignored",
        "levels",
        "message",
        "serializer",
        "shows_args",
        "shows_kwargs",
        "used_at",
        "uses",
    )

    def __init__(
        self,
        published: Published,
        options: Mapping[str, Any],
        settings: Mapping[str, Any],
        ignored: Any,
        dependencies: Dependencies,
    ) -> None:
        message, body = published.message, published.body
        headers = message.properties.get("headers")
        if not isinstance(body, tuple) or not headers or any(body[2].values()):
            raise NoTemplate("task protocol 1, or linked tasks")
        if headers.get("expires") is not None or "expiration" in message.properties:
            raise NoTemplate("a date")
        if message.requires or message.on_published:
            raise NoTemplate("more to do than to send it")
        if settings.get("task_always_eager"):
            raise NoTemplate("a warning that each call is to give")
        self.message: OutgoingMessage = message
        self.identity: TemplateId = TemplateId(_VARYING)
        self.headers: dict[str, Any] = {
            name: headers[name] for name in headers if name != "compression"
        }
        #: The third part of the body, behind ``args`` and ``kwargs``.
        self.embedded: dict[str, Any] = body[2]
        self.serializer: str | None = published.serializer
        self.compression: str | None = published.compression
        #: Whether the headers ``argsrepr`` and ``kwargsrepr`` show the arguments. Else the call's
        #: options give them.
        self.shows_args: bool = options.get("argsrepr") is None
        self.shows_kwargs: bool = options.get("kwargsrepr") is None
        #: The argument of ``saferepr`` that limits the levels, from Celery 5.6 on.
        levels = settings.get(_LEVELS)
        self.levels: dict[str, Any] = {} if levels is None else {"maxlevels": levels}
        self.ignored: Any = ignored
        self.dependencies: Dependencies = dependencies
        #: How often it was used since it was compared with Celery's code; and the last use, by the
        #: clock of the templates.
        self.uses: int = 0
        self.used_at: float = 0.0

    def fill(
        self,
        amqp: Any,
        producer: RecordingProducer,
        task_id: str,
        args: Any,
        kwargs: Any,
        options: Mapping[str, Any],
    ) -> OutgoingMessage:
        """Return the message for another call.

        :raises Exception: whatever kombu raises for arguments that can't be serialised.
        """
        args, kwargs = args or (), kwargs or {}
        headers = self._headers(amqp, task_id, args, kwargs, options)
        content = args, kwargs, self.embedded
        body, content_type, content_encoding = producer.serialise(
            content, self.serializer, self.compression, headers
        )
        return self._message(task_id, headers, body, content_type, content_encoding)

    def compare(
        self,
        amqp: Any,
        published: Published,
        args: Any,
        kwargs: Any,
        options: Mapping[str, Any],
    ) -> list[str]:
        """Return the names of the parts that differ from the message that Celery's code made.

        Arguments are not serialised again, which may take long. Instead, what kombu was asked to
        serialise is compared, with the serializer and the compression.
        """
        made = published.message
        args, kwargs = args or (), kwargs or {}
        task_id = made.task_id or ""
        headers = self._headers(amqp, task_id, args, kwargs, options)
        compressed = made.properties["headers"].get("compression")
        if compressed is not None:
            headers["compression"] = compressed
        again = self._message(
            task_id,
            headers,
            made.body,
            made.properties["content_type"],
            made.properties["content_encoding"],
        )
        found = differences(again, made)
        content = (args, kwargs, self.embedded), self.serializer, self.compression
        if content != (published.body, published.serializer, published.compression):
            found.append("body")
        return found

    def _headers(
        self, amqp: Any, task_id: str, args: Any, kwargs: Any, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        headers = self.headers.copy()
        if self.shows_args:
            headers["argsrepr"] = plain_repr(args) or saferepr(
                args, amqp.argsrepr_maxsize, **self.levels
            )
        if self.shows_kwargs:
            headers["kwargsrepr"] = plain_repr(kwargs) or saferepr(
                kwargs, amqp.kwargsrepr_maxsize, **self.levels
            )
        headers["id"] = task_id
        headers["root_id"] = options.get("root_id") or task_id
        headers["parent_id"] = options.get("parent_id")
        headers["group"] = options.get("group_id")
        headers["group_index"] = options.get("group_index")
        return headers

    def _message(
        self,
        task_id: str,
        headers: dict[str, Any],
        body: bytes | str,
        content_type: str,
        content_encoding: str,
    ) -> OutgoingMessage:
        made = self.message
        properties = made.properties.copy()
        identity: TemplateId | None = self.identity
        if (
            content_type != properties["content_type"]
            or content_encoding != properties["content_encoding"]
        ):  # somebody has registered another serializer by that name
            identity = None
            properties["content_type"] = content_type
            properties["content_encoding"] = content_encoding
        properties["headers"] = headers
        properties["correlation_id"] = task_id
        return OutgoingMessage(
            made.exchange,
            made.routing_key,
            body.encode() if isinstance(body, str) else body,
            properties,
            made.declarations,
            retry=made.retry,
            timeout=made.timeout,
            task_id=task_id,
            template=identity,
        )


_COMPARED = [each.name for each in fields(OutgoingMessage) if each.compare]


def differences(one: OutgoingMessage, other: OutgoingMessage) -> list[str]:
    """Return the names of the parts in which two messages differ.

    The order of properties and headers counts.
    """
    found = [
        name
        for name in _COMPARED
        if name != "properties" and getattr(one, name) != getattr(other, name)
    ]
    found += _differing_items("properties", one.properties, other.properties)
    ours, theirs = (each.properties.get("headers") or {} for each in (one, other))
    return found + _differing_items("headers", ours, theirs)


def _differing_items(what: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the names of the items in which two mappings differ, without ``headers``."""
    found = [
        f"{what}[{name}]"
        for name in dict.fromkeys((*one, *other))
        if name != "headers" and not _are_alike(one.get(name), other.get(name))
    ]
    if not found and list(one) != list(other):
        found.append(f"the order of {what}")
    return found


def _are_alike(one: Any, other: Any) -> bool:
    """Tell whether two values are the same on the wire, where True is not 1."""
    return type(one) is type(other) and one == other
