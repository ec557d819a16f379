"""Publishes and receives messages past aiormq, on its connection: the direct way.

aio-pika and aiormq connect, log in, open channels, declare, consume, and notice when any of that
ends. Only publishes, confirms, returns, deliveries and acknowledgements go past them: this writes
their frames to the socket between those that aiormq writes, and takes them out of those that it
reads. It relies on

- ``TransportFactory``: aiormq reads and writes everything by its reader and writer,
- aiormq writing whole frames at a time,
- ``Channel.number``, ``Channel.closing`` and ``Connection.connection_tune``.

There is a test for each of these, which fails if a new aiormq changes it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from struct import Struct
from typing import Any

import aiormq
import aiormq.abc

from ...core.completion import Completion
from ...core.publishing import OnAnswer, Sending
from .assembler import Delivered, DeliveryAssembler
from .channel import OnMessage
from .confirms import ConfirmWindow
from .errors import nacked, not_routable, translated
from .frames import (
    BODY,
    HEADER,
    METHOD,
    Method,
    PropertiesDecoder,
    PublishEncoder,
    encode_ack,
    read_return,
)
from .reader import FrameReader

__all__ = ["DirectConsumer", "DirectPublisher"]

logger: logging.Logger = logging.getLogger(__name__)

#: The number that a method begins with.
_METHOD = Struct(">I")
_METHOD_SIZE: int = _METHOD.size
_CONFIRMS = (Method.ACK, Method.NACK)
#: A confirm: method, delivery tag and bits; and the bit that means all tags up to that one.
_CONFIRM = Struct(">IQB")
_MULTIPLE = 1
#: Bytes that precede the properties in a content header.
_CONTENT_SIZE = 12


class _Channel:
    """A channel of aiormq's that takes some of its frames itself."""

    def __init__(
        self, channel: aiormq.Channel, reader: FrameReader, writer: asyncio.StreamWriter
    ) -> None:
        self._channel = channel
        self._number = channel.number
        self._reader = reader
        self._writer = writer
        self._transport = writer.transport
        #: Whether the broker has closed the channel. It would close the connection over anything
        #: that is sent on the channel after that.
        self._closing = False
        reader.attach(self._number, self)
        channel.closing.add_done_callback(self._on_closed)

    @property
    def is_closed(self) -> bool:
        return self._closing or self._channel.is_closed or self._transport.is_closing()

    def receive(self, kind: int, data: bytes, begin: int, end: int) -> bool:
        raise NotImplementedError

    def _method(self, data: bytes, begin: int, end: int) -> int:
        """Return the number of a method, and take note if that closes the channel."""
        if begin + _METHOD_SIZE > end:
            raise ValueError("a method without a number")
        method: int = _METHOD.unpack_from(data, begin)[0]
        if method == Method.CHANNEL_CLOSE:
            self._closing = True
        return method

    def _on_closed(self, closing: asyncio.Future[Any]) -> None:
        self._closing = True
        self._reader.detach(self._number, self)
        self._closed(None if closing.cancelled() else closing.exception())

    def _closed(self, error: BaseException | None) -> None:
        """Take note that the channel is gone, and why."""


class DirectPublisher(_Channel):
    """Publishes by writing the frames itself."""

    per_turn: int = 64  # each takes some 10 µs

    def __init__(
        self,
        channel: aiormq.Channel,
        reader: FrameReader,
        writer: asyncio.StreamWriter,
        on_answer: OnAnswer,
    ) -> None:
        super().__init__(channel, reader, writer)
        self._on_answer = on_answer
        self.all_answered: Completion = Completion()
        frame_max = channel.connection.connection_tune.frame_max
        self._encoder = PublishEncoder(self._number, frame_max)
        self._decoder = PropertiesDecoder()
        #: What :meth:`flush` or :meth:`drain` writes.
        self._out: list[bytes] = []
        #: What :meth:`drain` has still to write of a message that the socket can't take in one go.
        self._draining: deque[bytes] = deque()
        self._unconfirmed: ConfirmWindow[Sending] = ConfirmWindow()
        #: Reason, exchange and routing key of a message that is coming back.
        self._returned: tuple[str, str, str] | None = None

    def publish(self, sending: Sending) -> None:
        self._out += self._encoder.encode(sending.message)
        self._unconfirmed.add(sending)

    def flush(self) -> None:
        if self._out:
            self._writer.write(b"".join(self._out))
            self._out.clear()

    async def drain(self) -> None:
        self._draining.extend(self._out)
        self._out.clear()
        try:
            while self._draining:
                self._writer.write(self._draining.popleft())
                await self._writer.drain()
        except OSError:
            pass  # the channel closes, which all that is on its way is told

    def forget(self, sending: Sending) -> None:
        self._unconfirmed.discard(sending)

    def receive(self, kind: int, data: bytes, begin: int, end: int) -> bool:
        if kind != METHOD:
            if kind == HEADER:
                self._came_back(data[begin + _CONTENT_SIZE : end])
            return kind in (HEADER, BODY)  # a body is dropped: the message is known
        method = self._method(data, begin, end)
        if method in _CONFIRMS:
            _, tag, bits = _CONFIRM.unpack(data[begin:end])
            self._confirmed(tag, bits & _MULTIPLE != 0, method == Method.ACK)
        elif method == Method.RETURN:
            self._returned = read_return(data[begin + _METHOD_SIZE : end])
        else:
            if method == Method.CHANNEL_CLOSE:
                self._finish_writing()
            return False
        return True

    def _finish_writing(self) -> None:
        """Write the rest of a message before aiormq answers, in the next turn, to a close.

        RabbitMQ drops the connection where that answer comes within a message, and where the rest
        of a message comes after the answer.
        """
        while self._draining:
            self._writer.write(self._draining.popleft())

    def _confirmed(self, tag: int, multiple: bool, acknowledged: bool) -> None:
        try:
            confirmed = self._unconfirmed.take(tag, multiple)
        except LookupError as error:
            logger.error("RabbitMQ confirmed what was not published: %s", error)
            return
        for sending in confirmed:
            self._on_answer(sending, None if acknowledged else nacked())

    def _came_back(self, properties: bytes) -> None:
        """Settle a message that came back. Its confirm follows, and finds it settled."""
        if self._returned is None:
            raise ValueError("a content header that follows no basic.return")
        (reason, exchange, routing_key), self._returned = self._returned, None
        correlation_id = self._decoder.decode(properties).correlation_id

        def is_returned(sending: Sending) -> bool:
            message = sending.message
            return (
                message.mandatory
                and message.exchange == exchange
                and message.routing_key == routing_key
                and message.properties.get("correlation_id") == correlation_id
            )

        sending = self._unconfirmed.take_first(is_returned)
        if sending is not None:
            self._on_answer(sending, not_routable(reason, exchange, routing_key))

    def _closed(self, error: BaseException | None) -> None:
        self._out.clear()
        self._draining.clear()
        # Each goes back to its place in the queue, before all that are there.
        for sending in reversed(self._unconfirmed.take_all()):
            self._on_answer(sending, translated(error))
        self.all_answered.complete()


class DirectConsumer(_Channel):
    """Receives what aiormq's ``basic_consume`` makes the broker send."""

    def __init__(
        self,
        channel: aiormq.Channel,
        reader: FrameReader,
        writer: asyncio.StreamWriter,
        on_message: OnMessage,
    ) -> None:
        super().__init__(channel, reader, writer)
        self._on_message = on_message
        self._assembler = DeliveryAssembler()
        self._call_soon = asyncio.get_running_loop().call_soon
        #: The delivery tag of the last message, until that is acknowledged.
        self._unacknowledged = 0

    async def on_delivery(self, message: aiormq.abc.DeliveredMessage) -> None:
        raise AssertionError("aiormq got a message that was not for it")

    def stop(self) -> None:
        self._closing = True

    def receive(self, kind: int, data: bytes, begin: int, end: int) -> bool:
        if kind == BODY:
            message = self._assembler.body(data, begin, end)
        elif kind == HEADER:
            message = self._assembler.header(data, begin, end)
        elif kind == METHOD and self._method(data, begin, end) == Method.DELIVER:
            self._assembler.deliver(data, begin + _METHOD_SIZE, end)
            return True
        else:
            return False
        if message is not None:
            self._hand_over(message)
        return True

    def _hand_over(self, message: Delivered) -> None:
        if not self._unacknowledged:
            self._call_soon(self._acknowledge)
        self._unacknowledged, body, properties = message
        self._on_message(body, properties)

    def _acknowledge(self) -> None:
        tag, self._unacknowledged = self._unacknowledged, 0
        if not self.is_closed:
            self._writer.write(encode_ack(self._number, tag))
