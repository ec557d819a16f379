"""One connection to RabbitMQ through aio-pika: failover, login, TLS, and errors of our own.

It does not connect *again* by itself. Those who use the connection do that: only they know what
they lost with the old one, and for how long they may try.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import cast

import aiormq
import aiormq.abc
import aiormq.exceptions

from ...core.publishing import ConnectionLost, OnAnswer
from ...errors import BrokerUnreachable, ClientClosed, NotSent, Refused
from ...wire.message import Declaration
from .aiopika import AioPikaConnection
from .channel import ConsumingChannel, OnMessage, PublishingChannel
from .direct import DirectConsumer, DirectPublisher
from .errors import translating
from .plain import PlainConsumer, PlainPublisher
from .reader import FrameReader
from .settings import BrokerSettings, Server

__all__ = ["AmqpConnection"]

logger: logging.Logger = logging.getLogger(__name__)


class AmqpConnection:
    """A connection that can be opened, lost, and opened again.

    :param settings: the brokers to try, and in which order.
    :param purpose: shown as part of the connection's name in RabbitMQ's management.
    :param plain: whether aiormq's own methods publish and receive messages; see :mod:`.channel`.
    """

    def __init__(self, settings: BrokerSettings, purpose: str, *, plain: bool = False) -> None:
        self._settings = settings
        self._plain = plain
        self._name = f"bridgetask {purpose} {socket.gethostname()}:{os.getpid()}"
        self._servers = settings.cycle()
        self._server = next(self._servers)
        self._connection: AioPikaConnection | None = None
        self._opening = asyncio.Lock()
        self._retired = False
        self._declaring: aiormq.Channel | None = None
        self._declaring_one = asyncio.Lock()
        self._declared: set[Declaration] = set()

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, as far as this side knows."""
        connection = self._connection
        return (
            connection is not None
            and connection.transport is not None
            and not connection.transport.connection.is_closed
        )

    @property
    def is_blocked(self) -> bool:
        """Whether the broker has said that it takes no messages, being out of memory or disk."""
        connection = self._connection
        return connection is not None and connection.is_blocked

    async def unblocked(self) -> None:
        """Return once the broker takes messages; at once unless :attr:`is_blocked`."""
        if self._connection is not None and self._connection.is_blocked:
            logger.warning("%s is out of memory or disk space, and takes no messages", self._server)
            await self._connection.unblocked()

    async def open(self) -> None:
        """Connect unless connected, trying each server once.

        Cancelling this drops the connection that is being made.

        :raises ClientClosed: :meth:`retire` was called, before or meanwhile.
        :raises Refused: all servers refused the login or the virtual host.
        :raises BrokerUnreachable: none of the servers let us connect, and not all for that reason.
        """
        async with self._opening:
            if self.is_open:
                return
            await self.close()
            self._declaring = None
            self._declared.clear()
            problems: list[NotSent] = []
            for server in self._one_round():
                self._check_retired()
                try:
                    self._connection = await self._connect(server)
                except NotSent as error:
                    problems.append(error)
                else:
                    return
            raise _no_server(problems)

    def _one_round(self) -> Iterator[Server]:
        """Yield each server once, in the order of the strategy, from the last one used on.

        A strategy may repeat servers, as kombu's ``shuffle`` does, or leave some out.
        """
        untried = list(self._settings.servers)
        for _ in range(10 * len(untried)):
            if self._server in untried:
                untried.remove(self._server)
                yield self._server
            if not untried:
                break
            self._server = next(self._servers)
        for self._server in untried:
            yield self._server

    async def channel(self, *, confirms: bool) -> aiormq.Channel:
        """Open a channel, after connecting if that is needed."""
        await self.open()
        assert self._connection is not None
        channel = self._connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
        async with self.answering():
            await channel.initialize()
            return cast(aiormq.Channel, await channel.get_underlay_channel())

    async def publisher(self, on_answer: OnAnswer) -> PublishingChannel:
        """Open a channel to publish on, after connecting if that is needed."""
        channel = await self.channel(confirms=True)
        if self._plain:
            return PlainPublisher(channel, on_answer)
        return DirectPublisher(channel, *self._streams(channel), on_answer)

    def consumer(self, channel: aiormq.Channel, on_message: OnMessage) -> ConsumingChannel:
        """Return what receives messages on a channel of this connection.

        :raises ConnectionLost: the channel's connection was closed.
        """
        if self._plain:
            return PlainConsumer(channel, on_message)
        return DirectConsumer(channel, *self._streams(channel), on_message)

    def _streams(self, channel: aiormq.Channel) -> tuple[FrameReader, asyncio.StreamWriter]:
        """Return what the connection of a channel reads from and writes to.

        :raises ConnectionLost: that connection was closed.
        """
        connection = self._connection
        if (
            connection is None
            or connection.transport is None
            or connection.transport.connection is not channel.connection
        ):
            raise ConnectionLost("the connection was closed")
        return connection.streams

    async def declare(self, declaration: Declaration) -> None:
        """Declare a queue, an exchange or a binding, once for each connection.

        Declarations have a channel of their own, which the broker closes if it refuses one.

        :raises Refused: the broker refused, for example because it exists with other arguments.
        """
        if declaration in self._declared:
            return
        async with self._declaring_one:  # a refusal would fail all others on the channel
            if declaration in self._declared:
                return
            if self._declaring is None or self._declaring.is_closed:
                self._declaring = await self.channel(confirms=False)
            try:
                async with self.answering():
                    await _declare(self._declaring, declaration)
            except (BrokerUnreachable, asyncio.CancelledError):
                self._declaring = None  # aiormq closes the channel, but it does not say so yet
                raise
            self._declared.add(declaration)

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """Translate errors of aiormq inside, and drop the connection if the broker does not answer.

        It has as long to answer as to connect.

        :raises ConnectionLost: it did not answer, or the connection was lost.
        :raises Refused: it refused.
        """
        try:
            with translating():
                async with asyncio.timeout(self._server.connect_timeout):
                    yield
        except BrokerUnreachable as error:
            # A broker that is blocked does not read. Later it will, and confirm what it has by now.
            # While the connection is held, nothing that the broker sends is read here.
            quiet = self.is_blocked or self.is_held
            if isinstance(error.__cause__, TimeoutError) and not quiet:
                self.abort()  # all others who use it would wait in vain, too
            raise

    @property
    def is_held(self) -> bool:
        """Whether :meth:`hold` was called, and :meth:`release` was not called since."""
        connection = self._connection
        return connection is not None and connection.streams[0].is_held

    def hold(self) -> None:
        """Stop reading from this connection. One that is opened after it is read."""
        if self._connection is not None:
            self._connection.streams[0].hold()

    def release(self) -> None:
        """Read from the connection again."""
        if self._connection is not None:
            self._connection.streams[0].release()

    def retire(self) -> None:
        """Never connect again. A connection that is open stays open until it is closed."""
        self._retired = True

    def _check_retired(self) -> None:
        if self._retired:
            raise ClientClosed("the client was closed")

    def forget_declarations(self) -> None:
        """Declare everything anew when it is needed next."""
        self._declared.clear()

    async def close(self) -> None:
        """Close the connection, with a goodbye to the broker if it answers.

        Cancelling this drops the connection.
        """
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                with suppress(aiormq.exceptions.AMQPError, OSError, RuntimeError):
                    await connection.close()
            finally:
                connection.abort()

    def abort(self) -> None:
        """Drop the connection on the spot."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()

    async def _connect(self, server: Server) -> AioPikaConnection:
        try:
            connection = AioPikaConnection(server, self._name)
        except Exception as error:  # the app's own code may provide the password
            raise BrokerUnreachable(
                f"can't connect to {server}: {type(error).__name__} while asking for the password"
            ) from error
        try:
            with translating(f"can't connect to {server}"):
                try:
                    await connection.connect(timeout=server.connect_timeout)
                except aiormq.exceptions.InvalidFrameError as error:
                    raise connection.refusal() or error from error
            self._check_retired()
        except BaseException:
            connection.abort()
            raise
        logger.debug("Connected to %s as %r", server, self._name)
        return connection


def _no_server(problems: list[NotSent]) -> NotSent:
    message = "; ".join(map(str, problems))
    last = problems[-1]
    if all(isinstance(problem, Refused) for problem in problems):
        error: NotSent = Refused(message, code=getattr(last, "code", None))
    else:
        error = BrokerUnreachable(message)
    error.__cause__ = last.__cause__
    return error


async def _declare(channel: aiormq.abc.AbstractChannel, declaration: Declaration) -> None:
    """Declare as ``kombu.transport.pyamqp`` does."""
    name, arguments = declaration.name, dict(declaration.arguments)
    if declaration.operation == "queue_declare":
        await channel.queue_declare(name, **arguments)
    elif declaration.operation == "exchange_declare":
        await channel.exchange_declare(name, exchange_type=arguments.pop("type"), **arguments)
    elif declaration.operation == "queue_bind":
        await channel.queue_bind(name, **arguments)
    else:
        await channel.exchange_bind(name, **arguments)
