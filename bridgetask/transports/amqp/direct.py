"""Messages past aiormq: published and received on its connection, without its help.

aio-pika and aiormq connect, log in, open channels, declare, consume, and notice when any of that
ends. Only publishes, confirms, returns, deliveries and acknowledgements go past them: written to
the socket between the frames that aiormq writes, and taken out of what it reads. This relies on

- ``TransportFactory``, whose reader and writer aiormq uses for all that it reads and writes,
- each write of aiormq's consisting of whole frames,
- ``Channel.number``, ``Channel.closing`` and ``Connection.connection_tune``,

each held by a test of its own, so that a new aiormq can't change them unnoticed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from struct import Struct
from typing import Any

import aiormq
import aiormq.abc

from ...core.completion import Completion
from ...core.publishing import OnAnswer, Sending
from ...wire.message import Properties
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
from .plain import OnMessage
from .reader import FrameReader

__all__ = ["DirectDeliveries", "DirectPublisher"]

logger: logging.Logger = logging.getLogger(__name__)

_LONG = Struct(">I")
_CONFIRM = Struct(">IQB")
_CONTENT = Struct(">HHQ")


class _Channel:
    """A channel of aiormq's, some of whose frames are ours."""

    def __init__(
        self, channel: aiormq.Channel, reader: FrameReader, writer: asyncio.StreamWriter
    ) -> None:
        self._channel = channel
        self._number = channel.number
        self._reader = reader
        self._writer = writer
        self._transport = writer.transport
        #: Whether the broker has said that it closes the channel. What is sent after that would
        #: cost us the connection.
        self._closing = False
        reader.attach(self._number, self)
        channel.closing.add_done_callback(self._on_closed)

    @property
    def is_closed(self) -> bool:
        return self._closing or self._channel.is_closed or self._transport.is_closing()

    def receive(self, kind: int, data: bytes, begin: int, end: int) -> bool:
        if kind == METHOD:
            (method,) = _LONG.unpack_from(data, begin)
            if method == Method.CHANNEL_CLOSE:
                self._closing = True
            return self._receive_method(method, data, begin)
        if kind == HEADER:
            self._receive_header(data, begin, end)
            return True
        if kind == BODY:
            self._receive_body(data[begin:end])
            return True
        return False

    def _receive_method(self, method: int, data: bytes, begin: int) -> bool:
        raise NotImplementedError

    def _receive_header(self, data: bytes, begin: int, end: int) -> None:
        raise NotImplementedError

    def _receive_body(self, body: bytes) -> None:
        raise NotImplementedError

    def _on_closed(self, closing: asyncio.Future[Any]) -> None:
        self._closing = True
        self._reader.detach(self._number, self)
        self._closed(None if closing.cancelled() else closing.exception())

    def _closed(self, error: BaseException | None) -> None:
        """Take note that the channel is gone, and why."""


class DirectPublisher(_Channel):
    """Publishes by frames of its own making."""

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
        self._properties = PropertiesDecoder()
        self._out: list[bytes] = []
        #: What is yet to be written of a message that the socket can't take in one go.
        self._draining: deque[bytes] = deque()
        #: Messages by delivery tag, beginning with ``_first``; None where one is settled.
        self._unconfirmed: deque[Sending | None] = deque()
        self._first = 1
        self._returned: tuple[str, str, str] | None = None

    def publish(self, sending: Sending) -> None:
        self._out += self._encoder.encode(sending.message)
        self._unconfirmed.append(sending)

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
            pass  # the channel is about to be closed, which is told to all that is on its way

    def forget(self, sending: Sending) -> None:
        with suppress(ValueError):  # nothing is known of it any more
            self._unconfirmed[self._unconfirmed.index(sending)] = None

    def _receive_method(self, method: int, data: bytes, begin: int) -> bool:
        if method in (Method.ACK, Method.NACK):
            _, tag, flags = _CONFIRM.unpack_from(data, begin)
            self._confirmed(tag, bool(flags & 1), acknowledged=method == Method.ACK)
            return True
        if method == Method.RETURN:
            self._returned = read_return(data, begin + _LONG.size)
            return True
        if method == Method.CHANNEL_CLOSE:
            # aiormq answers that in the next turn. RabbitMQ drops the connection where the answer
            # comes within a message, and where the rest of a message comes after the answer.
            while self._draining:
                self._writer.write(self._draining.popleft())
        return False

    def _confirmed(self, tag: int, multiple: bool, *, acknowledged: bool) -> None:
        unconfirmed = self._unconfirmed
        at = tag - self._first
        if not 0 <= at < len(unconfirmed):
            logger.error("RabbitMQ confirmed %d, of %d messages", tag, len(unconfirmed))
            return
        settled: list[Sending | None] = []
        if multiple:
            settled = [unconfirmed.popleft() for _ in range(at + 1)]
            self._first = tag + 1
        else:
            settled.append(unconfirmed[at])
            unconfirmed[at] = None
        while unconfirmed and unconfirmed[0] is None:
            unconfirmed.popleft()
            self._first += 1
        for sending in settled:
            if sending is not None:
                self._on_answer(sending, None if acknowledged else nacked())

    def _receive_header(self, data: bytes, begin: int, end: int) -> None:
        """Settle a message that came back. Its confirm follows, and finds it settled."""
        if self._returned is None:
            raise ValueError("a content header that follows no basic.return")
        reason, exchange, routing_key = self._returned
        properties = self._properties.decode(data[begin + _CONTENT.size : end])
        for at, sending in enumerate(self._unconfirmed):
            if sending is None:
                continue
            message = sending.message
            if (
                message.mandatory
                and message.exchange == exchange
                and message.routing_key == routing_key
                and message.properties.get("correlation_id") == properties.correlation_id
            ):
                self._unconfirmed[at] = None
                self._on_answer(sending, not_routable(reason, exchange, routing_key))
                return

    def _receive_body(self, body: bytes) -> None:
        """Drop it: the message is known."""

    def _closed(self, error: BaseException | None) -> None:
        lost, self._unconfirmed = self._unconfirmed, deque()
        self._out.clear()
        self._draining.clear()
        for sending in reversed(lost):  # each goes back to its place, before all others
            if sending is not None:
                self._on_answer(sending, translated(error))
        self.all_answered.complete()


class DirectDeliveries(_Channel):
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
        self._decoder = PropertiesDecoder()
        self._call_soon = asyncio.get_running_loop().call_soon
        self._tag = 0
        #: Whether a message was announced whose content header is still to come.
        self._announced = False
        self._unacknowledged = 0
        self._missing = 0
        self._body: list[bytes] = []
        self._properties: Properties | None = None

    async def on_delivery(self, message: aiormq.abc.DeliveredMessage) -> None:
        raise AssertionError("aiormq got a message that was not for it")

    def stop(self) -> None:
        self._closing = True

    def _receive_method(self, method: int, data: bytes, begin: int) -> bool:
        if method != Method.DELIVER:
            return False
        at = begin + 5 + data[begin + 4]  # behind the consumer tag
        tag = data[at : at + 8]
        if len(tag) < 8:
            raise ValueError("a basic.deliver without a delivery tag")
        self._tag = int.from_bytes(tag, "big")
        self._announced = True
        return True

    def _receive_header(self, data: bytes, begin: int, end: int) -> None:
        if self._missing or not self._announced:
            raise ValueError("a content header that follows no basic.deliver")
        self._announced = False
        _, _, self._missing = _CONTENT.unpack_from(data, begin)
        self._properties = self._decoder.decode(data[begin + _CONTENT.size : end])
        if not self._missing:
            self._hand_over(b"")

    def _receive_body(self, body: bytes) -> None:
        if not 0 < len(body) <= self._missing:
            raise ValueError(f"{len(body)} bytes of a body of which {self._missing} were to come")
        self._missing -= len(body)
        if self._missing:
            self._body.append(body)
        elif self._body:
            parts, self._body = self._body, []
            self._hand_over(b"".join((*parts, body)))
        else:
            self._hand_over(body)

    def _hand_over(self, body: bytes) -> None:
        if not self._unacknowledged:
            self._call_soon(self._acknowledge)
        self._unacknowledged = self._tag
        assert self._properties is not None
        self._on_message(body, self._properties)

    def _acknowledge(self) -> None:
        tag, self._unacknowledged = self._unacknowledged, 0
        if not self.is_closed:
            self._writer.write(encode_ack(self._number, tag))
