"""Messages to send, what must be declared or stored before that, and received properties."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from ..retry import RetryPolicy

__all__ = ["Declaration", "OutgoingMessage", "Properties", "StoreWrite", "TemplateId"]


@dataclass(frozen=True, slots=True)
class Declaration:
    """One step of declaring a queue or an exchange, in kombu's words.

    Hashable, so that a connection can remember what it has declared.
    """

    operation: Literal["exchange_declare", "queue_declare", "exchange_bind", "queue_bind"]
    name: str
    _key: str
    arguments: Mapping[str, Any] = field(compare=False)

    @classmethod
    def of(cls, operation: Any, name: str, arguments: dict[str, Any]) -> Declaration:
        """Build a declaration; ``arguments`` are those of kombu's channel method."""
        return cls(operation, name, repr(sorted(arguments.items())), arguments)


class Properties(NamedTuple):
    """The properties of a message that its receiver needs to read the body."""

    content_type: str | None = None
    content_encoding: str | None = None
    headers: Mapping[str, Any] | None = None
    correlation_id: str | None = None


@dataclass(frozen=True, slots=True)
class StoreWrite:
    """A write that Celery's result backend would have done."""

    #: Redis commands, each a tuple of what redis-py takes. Several are one transaction.
    commands: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class TemplateId:
    """The identity of the template that made a message; compared by identity.

    Messages with the same one have the same properties, in the same order, but for
    ``correlation_id`` and the headers in ``varying``. So a carrier can keep the encoded form of
    what they share. A weak reference to this ends when the template is dropped.
    """

    #: The names of headers that differ from message to message.
    varying: frozenset[str]


@dataclass(slots=True)
class OutgoingMessage:
    """A message as kombu would have published it, ready to be carried."""

    exchange: str
    routing_key: str
    body: bytes
    #: AMQP's property names -> values: ``content_type``, ``headers``, ``correlation_id`` ...
    properties: dict[str, Any]
    declarations: tuple[Declaration, ...] = ()
    #: Writes to the result backend that must be done before the message is sent.
    requires: tuple[StoreWrite, ...] = ()
    #: When to try again, or None where ``retry=False``.
    retry: RetryPolicy | None = None
    #: Seconds that the options ``timeout`` and ``confirm_timeout`` allow, or None.
    timeout: float | None = None
    #: Whether it is an error if no queue takes it. Events may go unheard.
    mandatory: bool = True
    #: The id of the task that the message carries, or None.
    task_id: str | None = None
    #: The template that made it, or None if Celery's code did.
    template: TemplateId | None = field(default=None, compare=False, repr=False)
    #: To be called once the message is published: they send Celery's signals, in this order.
    on_published: list[Callable[[], object]] = field(default_factory=list)

    @property
    def received(self) -> Properties:
        """The properties as a receiver sees them."""
        return Properties(*map(self.properties.get, Properties._fields))

    @property
    def stamps(self) -> Mapping[str, Any]:
        """What the task is stamped with, if it is."""
        headers = self.properties.get("headers") or {}
        stamps = headers.get("stamps") or {}
        return {name: stamps.get(name) for name in headers.get("stamped_headers") or ()}
