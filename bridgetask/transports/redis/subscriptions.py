"""The pub/sub connection of a client to one Redis, for all who listen there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from .errors import RedisError
from .opening import Opening
from .pipeline import Connector
from .subscriber import RedisSubscriber

__all__ = ["RedisSubscriptions", "Subscribing"]


class Subscribing(Protocol):
    """Somebody who subscribes, and does so again on each new connection."""

    def connected(self, subscriber: RedisSubscriber) -> None:
        """Ask a new connection for all that is wanted."""

    def lost(self, error: RedisError) -> None:
        """Learn that nothing is heard any more, until somebody connects again."""


class RedisSubscriptions:
    """Connects when somebody wants to listen, once for all of them.

    :param connector: opens the connection.
    """

    def __init__(self, connector: Connector, loop: asyncio.AbstractEventLoop) -> None:
        self._connector = connector
        self._loop = loop
        self._opening = Opening(self._connect, "bridgetask Redis subscriptions")
        self._users: list[Subscribing] = []
        #: The connection, if there is one.
        self.current: RedisSubscriber | None = None
        #: Who takes the messages of channels, by channel and payload.
        self.on_message: Callable[[bytes, bytes], None] = lambda *_: None
        #: Who takes the messages of a pattern.
        self._takers: dict[bytes, list[Callable[[bytes], None]]] = {}

    @property
    def address(self) -> str:
        """The server's URL, without credentials."""
        return self._connector.server.address

    def join(self, user: Subscribing) -> None:
        """Take note of a user, who is to leave."""
        self._users.append(user)

    async def leave(self, user: Subscribing) -> None:
        """Disconnect, if this was the last user. Others may come."""
        if user in self._users:
            self._users.remove(user)
        if not self._users:
            self._disconnect()
            await self._opening.stop()

    def abort(self) -> None:
        """Disconnect on the spot, whoever uses it."""
        self._opening.cancel()
        self._disconnect()

    def _disconnect(self) -> None:
        if self.current is not None:
            self.current.abort()
            self.current = None

    async def connected(self) -> RedisSubscriber:
        """Return the connection, opening it where that is needed. For users alone.

        :raises RedisError: that was not possible.
        :raises ClientClosed: this was closed, before or meanwhile.
        """
        while self.current is None:
            await self._opening.wait()
        return self.current

    async def _connect(self) -> None:
        stream = await self._connector.open()
        subscriber = RedisSubscriber(
            stream, self._connector.server, self._on_message, self._on_match, self._on_lost
        )
        for pattern in self._takers:
            subscriber.subscribe_pattern(pattern)
        for user in self._users:
            user.connected(subscriber)
        self.current = subscriber

    def _on_message(self, channel: bytes, payload: bytes) -> None:
        self.on_message(channel, payload)

    def _on_match(self, pattern: bytes, payload: bytes) -> None:
        for take in list(self._takers.get(pattern, ())):
            take(payload)

    def _on_lost(self, error: RedisError) -> None:
        self.current = None
        for user in list(self._users):
            user.lost(error)

    # Patterns.

    def listen(self, pattern: bytes, take: Callable[[bytes], None]) -> None:
        """Hand over what is published on channels that match a pattern, as long as it is heard."""
        takers = self._takers.setdefault(pattern, [])
        takers.append(take)
        if self.current is not None and len(takers) == 1:
            self.current.subscribe_pattern(pattern)

    def ignore(self, pattern: bytes, take: Callable[[bytes], None]) -> None:
        """End what :meth:`listen` began."""
        takers = self._takers.get(pattern, [])
        if take in takers:
            takers.remove(take)
            if not takers:
                del self._takers[pattern]
                if self.current is not None:
                    self.current.unsubscribe_pattern(pattern)
