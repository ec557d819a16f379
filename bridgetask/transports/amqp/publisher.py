"""Publishing to RabbitMQ: a channel with confirms, and what must exist before a message goes."""

from __future__ import annotations

import asyncio

from ...core.publishing import OnAnswer, Sending
from ...errors import InvalidOption
from ...wire.message import Declaration, OutgoingMessage
from .channel import PublishingChannel
from .connection import AmqpConnection

__all__ = ["AmqpPublisher"]

#: How many sets of declarations are remembered as made.
_REMEMBERED = 1024


class AmqpPublisher:
    """Publishes over one connection and one channel with confirms; see ``Publisher``."""

    #: What the socket takes in one go, for certain.
    large = 65_536
    #: RabbitMQ 4 refuses what is larger than 16 MiB by closing the channel, under everything that
    #: is on its way.
    alone = 16 * 1024 * 1024

    def __init__(self, connection: AmqpConnection) -> None:
        self._connection = connection
        self._on_answer: OnAnswer
        self._channel: PublishingChannel | None = None
        self._opening = asyncio.Lock()
        #: What is known to exist on the connection: tuples of declarations by their ids.
        self._declared: dict[int, tuple[Declaration, ...]] = {}
        self._known_exchanges: set[str] = {""}

    def start(self, on_answer: OnAnswer) -> None:
        self._on_answer = on_answer

    @property
    def per_turn(self) -> int:
        return self._channel.per_turn if self._channel is not None else 0

    @property
    def is_open(self) -> bool:
        return self._connection.is_open

    @property
    def blocked(self) -> str | None:
        if self._connection.is_blocked:
            return "the broker is blocked: out of memory or disk space"
        return None

    def ready(self, message: OutgoingMessage) -> bool:
        channel = self._channel
        return (
            channel is not None
            and not channel.is_closed
            and self._declared.get(id(message.declarations)) is message.declarations
            and message.exchange in self._known_exchanges
        )

    async def connect(self) -> None:
        await self._open_channel()

    async def prepare(self, message: OutgoingMessage) -> None:
        await self._open_channel()
        await self._connection.unblocked()
        try:
            for declaration in message.declarations:
                await self._connection.declare(declaration)
        except (TypeError, ValueError) as error:
            if isinstance(error, InvalidOption):
                raise
            raise InvalidOption("queue", f"can't be declared: {error}") from error
        await self._check_exchange(message)
        if len(self._declared) >= _REMEMBERED:
            self._declared.clear()
        self._declared[id(message.declarations)] = message.declarations

    def publish(self, sending: Sending) -> None:
        assert self._channel is not None
        self._channel.publish(sending)

    def flush(self) -> None:
        if self._channel is not None:
            self._channel.flush()

    async def drain(self) -> None:
        assert self._channel is not None
        await self._channel.drain()

    def forget(self, sending: Sending) -> None:
        assert self._channel is not None
        self._channel.forget(sending)

    def retire(self) -> None:
        self._connection.retire()

    async def close(self) -> None:
        await self._connection.close()

    def abort(self) -> None:
        self._connection.abort()

    async def _open_channel(self) -> None:
        """Open a channel to publish on. It replaces an old one once all on that is answered."""
        async with self._opening:  # prepare() and connect() may both be here
            channel = self._channel
            if channel is None or channel.is_closed:
                if channel is not None:
                    await channel.all_answered.wait()
                self._declared.clear()
                self._known_exchanges = {""}
                self._channel = await self._connection.publisher(self._on_answer)

    async def _check_exchange(self, message: OutgoingMessage) -> None:
        """Make sure that an exchange that nobody declared exists.

        Publishing to a missing one closes the channel, under all that is on its way.
        """
        name = message.exchange
        if name in self._known_exchanges:
            return
        declared = any(
            each.operation == "exchange_declare" and each.name == name
            for each in message.declarations
        )
        if not declared:
            await self._connection.declare(
                Declaration.of("exchange_declare", name, {"type": "direct", "passive": True})
            )
        self._known_exchanges.add(name)
