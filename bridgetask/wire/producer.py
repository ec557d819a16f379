"""kombu's producer without a connection: it builds messages and keeps them, unpublished."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from kombu import Connection, Producer
from kombu.transport.base import to_rabbitmq_queue_arguments

from ..retry import RetryPolicy
from .message import Declaration, OutgoingMessage
from .observing import Published, current_observations
from .snapshot import Snapshot

__all__ = ["RecordingChannel", "RecordingProducer", "declarations_of"]

#: The properties that AMQP knows; kombu drops all others as well.
_PROPERTIES = (
    "correlation_id",
    "reply_to",
    "delivery_mode",
    "expiration",
    "message_id",
    "timestamp",
    "type",
    "user_id",
    "app_id",
    "cluster_id",
)

#: How many retry policies are remembered.
_REMEMBERED = 128


class RecordingProducer(Producer):
    """kombu's producer, without a connection. It serialises by kombu's own code.

    :param connection: what to show those who ask for the connection. Nothing connects it.
    :param channel: what messages and declarations are recorded on.
    :param on_message: called with each message in place of publishing it.
    """

    def __init__(
        self,
        connection: Connection,
        channel: RecordingChannel,
        on_message: Callable[[OutgoingMessage], None],
    ) -> None:
        self._on_message = on_message
        #: By queues and exchanges, with what those were.
        self._declared: dict[Any, tuple[Any, Snapshot, tuple[Declaration, ...]]] = {}
        self._retry_policies: dict[tuple[Any, ...], RetryPolicy] = {}
        # Never connected; but Celery, and those who trace calls, ask it for settings.
        self._connection = connection
        super().__init__(cast(Any, None), auto_declare=False)
        self._channel = channel

    @property
    def connection(self) -> Any:
        """A connection like the app's. Nothing connects it."""
        return self._connection

    def publish(self, body: Any, **options: Any) -> None:  # type: ignore[override]
        """Follow ``Producer.publish``; keep what it would have done with the connection."""
        declare = options.pop("declare", None)
        retry = options.pop("retry", False)
        policy = options.pop("retry_policy", None) or {}
        options.pop("mandatory", None)
        timeout, confirm_timeout = (
            options.pop("timeout", None),
            options.pop("confirm_timeout", None),
        )
        message = cast(OutgoingMessage, super().publish(body, **options))
        message.declarations = self._declarations(declare or ())
        message.retry = self._retry_policy(policy) if retry else None
        message.timeout = _sooner(timeout, confirm_timeout)
        observations = current_observations()
        if observations is not None:
            observations.published.append(
                Published(
                    message,
                    body,
                    options.get("serializer"),
                    options.get("compression"),
                    tuple(declare or ()),
                )
            )
        self._on_message(message)

    def serialise(
        self,
        content: Any,
        serializer: str | None,
        compression: str | None,
        headers: dict[str, Any],
    ) -> tuple[bytes | str, str, str]:
        """Return a body, its content type and its encoding, as ``publish`` makes them.

        :param headers: gets one that names the compression, if there is any.
        """
        prepared: tuple[bytes | str, str, str] = self._prepare(
            content, serializer, None, None, compression, headers
        )
        return prepared

    def _retry_policy(self, policy: Mapping[str, Any]) -> RetryPolicy:
        """Return a policy; the same one for equal mappings, as nearly all of them are."""
        key = tuple(policy.items())
        try:
            known = self._retry_policies.get(key)
        except TypeError:  # there is something in it that can't be hashed
            return RetryPolicy.from_mapping(policy)
        if known is None:
            if len(self._retry_policies) >= _REMEMBERED:
                self._retry_policies.clear()
            known = self._retry_policies[key] = RetryPolicy.from_mapping(policy)
        return known

    def _declarations(self, entities: Any) -> tuple[Declaration, ...]:
        found: tuple[Declaration, ...] = ()
        for entity in entities:
            known = self._declared.get(entity)
            # kombu's == leaves out max_length, expires and others.
            if known is not None and known[0] is entity and known[1].is_current():
                found += known[2]
                continue
            try:
                snapshot = Snapshot(entity)
            except TypeError:  # it may be changed unseen
                found += declarations_of(entity, type(self._channel))
                continue
            declarations = declarations_of(entity, type(self._channel))
            self._declared[entity] = entity, snapshot, declarations
            found += declarations
        return found


def _sooner(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return one if other is None else other
    return min(one, other)


def declarations_of(
    entity: Any, channel_class: type[RecordingChannel] | None = None
) -> tuple[Declaration, ...]:
    """Return the steps in which kombu declares a queue or an exchange.

    :param channel_class: the class of the channel that they are recorded on; AMQP's unless given.
    """
    channel = (channel_class or RecordingChannel)()
    entity(channel).declare()
    return tuple(channel.declarations)


class RecordingChannel:
    """Keeps the calls that kombu makes on a channel."""

    def __init__(self) -> None:
        self.declarations: list[Declaration] = []
        self.is_open = True

    def prepare_message(
        self,
        body: Any,
        priority: int | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
        headers: dict[str, Any] | None = None,
        properties: dict[str, Any] | None = None,
    ) -> tuple[bytes, dict[str, Any]]:
        """Follow ``pyamqp.Channel.prepare_message``."""
        known = {
            "content_type": content_type,
            "content_encoding": content_encoding,
            "headers": headers,
            "priority": priority,
        }
        given = properties or {}
        for name in _PROPERTIES:
            if given.get(name) is not None:
                known[name] = given[name]
        return (body.encode() if isinstance(body, str) else bytes(body)), known

    def basic_publish(
        self, message: tuple[bytes, dict[str, Any]], exchange: str, routing_key: str, **_: Any
    ) -> OutgoingMessage:
        """Return the message instead of publishing it."""
        body, properties = message
        return OutgoingMessage(exchange, routing_key, body, properties)

    def prepare_queue_arguments(self, arguments: dict[str, Any], **options: Any) -> dict[str, Any]:
        """Follow ``pyamqp.Channel.prepare_queue_arguments``."""
        prepared: dict[str, Any] = to_rabbitmq_queue_arguments(arguments, **options)
        return prepared

    def exchange_declare(self, exchange: str, **arguments: Any) -> None:
        """Keep a declaration."""
        self._add("exchange_declare", exchange, arguments)

    def queue_declare(self, queue: str, **arguments: Any) -> None:
        """Keep a declaration."""
        self._add("queue_declare", queue, arguments)

    def exchange_bind(self, destination: str, **arguments: Any) -> None:
        """Keep a declaration."""
        self._add("exchange_bind", destination, arguments)

    def queue_bind(self, queue: str, **arguments: Any) -> None:
        """Keep a declaration."""
        self._add("queue_bind", queue, arguments)

    def _add(self, operation: str, name: str, arguments: dict[str, Any]) -> None:
        arguments.pop("nowait", None)
        self.declarations.append(Declaration.of(operation, name, arguments))
