"""Splits RabbitMQ's bytes into frames: message frames to our channels, the rest to aiormq."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

import pamqp.header

from .frames import FRAME, HEADER, HEARTBEAT
from .splitter import FrameSplitter, NotAmqp

__all__ = ["FrameReader", "FrameReceiver"]

logger: logging.Logger = logging.getLogger(__name__)

#: Seconds that receivers may spend on frames in one turn of the event loop.
_SLICE = 0.002
#: The clock is read once for this many frames that receivers take.
_LOOK = 16
#: Receivers take this many frames in one turn at most. A result has three frames, and may wake
#: somebody who calls the next task in the same turn.
_MOST = 96
#: aiormq gets a heartbeat this often, in seconds, while receivers take all frames.
_SIGN_OF_LIFE = 1.0

_FRAME_BEGIN: int = FRAME.size
#: Bytes that precede the properties in a content header.
_PREFIX = 12


class FrameReceiver(Protocol):
    """Takes frames of one channel."""

    def receive(self, kind: int, data: bytes, begin: int, end: int) -> bool:
        """Take the frame whose payload is ``data[begin:end]``, or return False to leave it.

        :raises Exception: the frame can't be read. That ends the connection.
        """


class FrameReader(asyncio.StreamReader):
    """The stream that aiormq reads, without the frames that receivers take.

    It also replaces properties that end aiormq's reading: text that is not UTF-8, a time outside
    the calendar, deeply nested headers. RabbitMQ passes such a message on, and delivers it again on
    each new connection. So one message, from anybody who may write into the queue, would keep all
    results out.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._clock: Callable[[], float] = loop.time
        self._call_soon = loop.call_soon
        self._receivers: dict[int, FrameReceiver] = {}
        #: Whoever connects sets its ``largest_frame`` to what was agreed upon.
        self.splitter: FrameSplitter = FrameSplitter()
        #: Whether splitting goes on in the next turn of the event loop.
        self._interrupted = False
        self._held = False
        self._ended = False
        #: The loop's time at which aiormq is to be given a heartbeat.
        self._heartbeat_due = 0.0
        #: The type of the frame that aiormq is reading.
        self._frame_type = 0
        #: What aiormq was given last.
        self.last_data: bytes = b""
        #: The loop's time when bytes came last.
        self.last_time: float = 0.0
        #: Whoever connects sets it.
        self.transport: asyncio.Transport | None = None

    def attach(self, channel: int, receiver: FrameReceiver) -> None:
        """Offer the frames of a channel to ``receiver`` from now on."""
        self._receivers[channel] = receiver

    def detach(self, channel: int, receiver: FrameReceiver) -> None:
        """Leave the frames of a channel to aiormq again."""
        if self._receivers.get(channel) is receiver:
            del self._receivers[channel]

    def feed_data(self, data: Any) -> None:
        self.last_time = self._clock()
        if self._ended:
            return
        # A transport may reuse the buffer that it hands over.
        if self.splitter.feed(bytes(data)) and not self._interrupted:
            self._read(self.last_time)

    def feed_eof(self) -> None:
        self._ended = True
        super().feed_eof()

    def hold(self) -> None:
        """Stop reading from the socket. The silence that follows is not the broker's."""
        self._held = True
        self._pause()

    def release(self) -> None:
        """Read from the socket again."""
        self._held = False
        self.last_time = self._clock()
        self._resume()

    def show_life(self) -> None:
        """Give aiormq a heartbeat: it must not take a connection that is held for a dead one."""
        if not self._ended:
            self._feed_aiormq(HEARTBEAT)

    @property
    def is_held(self) -> bool:
        """Whether :meth:`hold` was called, and :meth:`release` was not called since."""
        return self._held

    def _pause(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def _resume(self) -> None:
        if self._held or self._interrupted:
            return
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def _interrupt(self) -> None:
        """Go on in the next turn of the event loop."""
        self._interrupted = True
        self._pause()
        self._call_soon(self._continue)

    def _continue(self) -> None:
        self._interrupted = False
        if not self._ended:
            self._read(self._clock())
            self._resume()

    def _read(self, now: float) -> None:
        try:
            self._read_frames(now)
        except Exception:
            logger.exception("RabbitMQ sent what can't be read; dropping the connection")
            self._ended = True
            self.splitter.take_rest()
            if self.transport is not None:
                self.transport.abort()

    def _read_frames(self, now: float) -> None:
        """Route the frames that have come, or as many of them as one turn has time for."""
        receivers = self._receivers
        until = now + _SLICE
        for_aiormq: list[bytes] = []
        taken = 0
        try:
            for kind, channel, data, begin, end in self.splitter.frames():
                receiver = receivers.get(channel)
                if receiver is None or not receiver.receive(kind, data, begin, end):
                    for_aiormq.append(data[begin - _FRAME_BEGIN : end + 1])
                    continue
                taken += 1
                if not taken % _LOOK and (taken >= _MOST or self._clock() > until):
                    self._interrupt()
                    break
        except NotAmqp:  # aiormq says what is wrong with it
            for_aiormq.append(self.splitter.take_rest())
            self._ended = True
        if for_aiormq:
            self._feed_aiormq(b"".join(for_aiormq))
        elif taken and until > self._heartbeat_due:
            self._feed_aiormq(HEARTBEAT)
        if self._ended:
            super().feed_eof()

    def _feed_aiormq(self, data: bytes) -> None:
        self._heartbeat_due = self.last_time + _SIGN_OF_LIFE
        self.last_data = data
        super().feed_data(data)

    async def readexactly(self, n: int) -> bytes:
        """Read for aiormq, which reads a frame's type, then channel and size, then the rest."""
        data = await super().readexactly(n)
        if n == 1:
            self._frame_type = data[0]
        elif n > _PREFIX and self._frame_type == HEADER:
            data = _without_broken_properties(data)
        return data


def _without_broken_properties(data: bytes) -> bytes:
    """Return the rest of a content header's frame, with no properties where they are broken."""
    try:
        pamqp.header.ContentHeader().unmarshal(data[:-1])
    except Exception:  # anybody may have written them
        return data[:_PREFIX] + bytes(len(data) - _PREFIX - 1) + data[-1:]
    return data
