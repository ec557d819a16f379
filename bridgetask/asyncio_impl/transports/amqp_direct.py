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
from collections.abc import Callable
from struct import Struct
from typing import Any, Protocol

import aiormq
import aiormq.abc

from ...wire.frames import (
    BODY,
    FRAME,
    FRAME_END,
    HEADER,
    HEARTBEAT,
    METHOD,
    Method,
    Properties,
    PropertiesDecoder,
    PublishEncoder,
    encode_ack,
    read_return,
)
from .amqp_channel import OnMessage, OnSettled, Sending
from .amqp_errors import nacked, not_routable, translated

__all__ = ["DirectDeliveries", "DirectPublisher", "FrameReader"]

logger: logging.Logger = logging.getLogger(__name__)

#: Seconds that reading frames may take in one turn of the event loop.
_SLICE = 0.002
#: How many frames are read between two looks at the clock.
_LOOK = 16
#: How many frames are read in one turn. Three are a result, and each result may wake somebody who
#: calls the next task in the same turn.
_MOST = 96
#: Seconds between the signs of life that aiormq is given while none of the frames are for it.
_SIGN_OF_LIFE = 1.0

_LAST_FRAME_TYPE = 8
_LONG = Struct(">I")
_CONFIRM = Struct(">IQB")
_CONTENT = Struct(">HHQ")


class _Receiver(Protocol):
    """Takes frames of one channel."""

    def receive(self, kind: int, data: bytes, begin: int, end: int) -> bool:
        """Take the frame whose payload is ``data[begin:end]``; return False to leave it alone."""


class FrameReader(asyncio.StreamReader):
    """What aiormq reads from, less the frames that receivers take out."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._clock: Callable[[], float] = loop.time
        self._call_soon = loop.call_soon
        self._receivers: dict[int, _Receiver] = {}
        self._unread = b""
        self._interrupted = False
        self._sign_of_life = 0.0
        #: What aiormq was given last.
        self.last_data: bytes = b""
        #: The loop's time when anything came last.
        self.last_time: float = 0.0
        #: Set by whoever connects.
        self.transport: asyncio.Transport | None = None

    def attach(self, channel: int, receiver: _Receiver) -> None:
        """Let ``receiver`` take frames of a channel from now on."""
        self._receivers[channel] = receiver

    def detach(self, channel: int, receiver: _Receiver) -> None:
        """Leave the frames of a channel to aiormq again."""
        if self._receivers.get(channel) is receiver:
            del self._receivers[channel]

    def feed_data(self, data: Any) -> None:
        self.last_time = self._clock()
        self._unread = self._unread + data if self._unread else bytes(data)
        if not self._interrupted:
            self._read_frames()

    def _continue(self) -> None:
        self._interrupted = False
        self._read_frames()
        if not self._interrupted and self.transport is not None:
            self.transport.resume_reading()

    def _interrupt(self) -> None:
        """Go on in the next turn of the event loop."""
        self._interrupted = True
        if self.transport is not None:
            self.transport.pause_reading()
        self._call_soon(self._continue)

    def _read_frames(self) -> None:
        data = self._unread
        receivers = self._receivers
        for_aiormq: list[bytes] = []
        at = begin = looked = 0
        end = len(data)
        until = self._clock() + _SLICE
        while end - at >= FRAME.size:
            kind, channel, size = FRAME.unpack_from(data, at)
            after = at + size + FRAME.size + 1
            if kind > _LAST_FRAME_TYPE or (after <= end and data[after - 1] != FRAME_END):
                at = end  # this is no AMQP; aiormq will say so
                break
            if after > end:
                break
            receiver = receivers.get(channel)
            if receiver is not None and receiver.receive(kind, data, at + FRAME.size, after - 1):
                if begin < at:
                    for_aiormq.append(data[begin:at])
                begin = after
                looked += 1
                if looked % _LOOK == 0 and (looked >= _MOST or self._clock() > until):
                    self._interrupt()
                    at = after
                    break
            at = after
        if begin < at:
            for_aiormq.append(data[begin:at])
        self._unread = data[at:]
        if for_aiormq:
            self._feed_aiormq(b"".join(for_aiormq))
        elif looked and until > self._sign_of_life:
            self._feed_aiormq(HEARTBEAT)

    def _feed_aiormq(self, data: bytes) -> None:
        self._sign_of_life = self._clock() + _SIGN_OF_LIFE
        self.last_data = data
        super().feed_data(data)


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
        on_settled: OnSettled,
    ) -> None:
        super().__init__(channel, reader, writer)
        self._on_settled = on_settled
        frame_max = channel.connection.connection_tune.frame_max
        self._encoder = PublishEncoder(self._number, frame_max)
        self._properties = PropertiesDecoder()
        self._out: list[bytes] = []
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
        pieces, self._out = self._out, []
        try:
            for piece in pieces:
                self._writer.write(piece)
                await self._writer.drain()
        except OSError:
            pass  # the channel is about to be closed, which is told to all that is on its way

    def forget(self, sending: Sending) -> None:
        self._unconfirmed[self._unconfirmed.index(sending)] = None

    def _receive_method(self, method: int, data: bytes, begin: int) -> bool:
        if method in (Method.ACK, Method.NACK):
            _, tag, flags = _CONFIRM.unpack_from(data, begin)
            self._confirmed(tag, bool(flags & 1), acknowledged=method == Method.ACK)
            return True
        if method == Method.RETURN:
            self._returned = read_return(data, begin + _LONG.size)
            return True
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
                self._on_settled(sending, None if acknowledged else nacked())

    def _receive_header(self, data: bytes, begin: int, end: int) -> None:
        """Settle a message that came back. Its confirm follows, and finds it settled."""
        assert self._returned is not None
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
                self._on_settled(sending, not_routable(reason, exchange, routing_key))
                return

    def _receive_body(self, body: bytes) -> None:
        """Drop it: the message is known."""

    def _closed(self, error: BaseException | None) -> None:
        lost, self._unconfirmed = self._unconfirmed, deque()
        self._out.clear()
        for sending in reversed(lost):  # each goes back to its place, before all others
            if sending is not None:
                self._on_settled(sending, translated(error))


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
        self._tag = int.from_bytes(data[at : at + 8], "big")
        return True

    def _receive_header(self, data: bytes, begin: int, end: int) -> None:
        _, _, self._missing = _CONTENT.unpack_from(data, begin)
        self._properties = self._decoder.decode(data[begin + _CONTENT.size : end])
        if not self._missing:
            self._hand_over(b"")

    def _receive_body(self, body: bytes) -> None:
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
        self._on_message(body, *self._properties)

    def _acknowledge(self) -> None:
        tag, self._unacknowledged = self._unacknowledged, 0
        if not self.is_closed:
            self._writer.write(encode_ack(self._number, tag))
