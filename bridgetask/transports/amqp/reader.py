"""What a connection to RabbitMQ is read by: frame by frame, each for who takes it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

import pamqp.header

from .frames import FRAME, FRAME_END, HEADER, HEARTBEAT

__all__ = ["FrameReader"]

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

#: Bytes that a frame may have while none were agreed upon: what RabbitMQ proposes itself.
_LARGEST_FRAME = 131_072
_LAST_FRAME_TYPE = 8
#: Bytes that precede the properties in a content header.
_PREFIX = 12


class _Receiver(Protocol):
    """Takes frames of one channel."""

    def receive(self, kind: int, data: bytes, begin: int, end: int) -> bool:
        """Take the frame whose payload is ``data[begin:end]``; return False to leave it alone.

        :raises Exception: it can't be read. That ends the connection.
        """


class FrameReader(asyncio.StreamReader):
    """What aiormq reads from, less the frames that receivers take out.

    Where they do not, it keeps from aiormq what that can't take. Properties can be such that aiormq
    does not survive them: text that is no UTF-8, a time beyond the calendar, deeply nested headers.
    RabbitMQ passes them on, and would do so again and again, on each connection that is opened for
    the one that was lost by it. So one message, of anybody who may write into the queue, would keep
    all results out.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._clock: Callable[[], float] = loop.time
        self._call_soon = loop.call_soon
        self._receivers: dict[int, _Receiver] = {}
        #: What is not read yet, and how many bytes there must be of it before that makes sense.
        self._unread: list[bytes] = []
        self._size = 0
        self._wanted: int = FRAME.size
        self._interrupted = False
        self._held = False
        self._ended = False
        self._sign_of_life = 0.0
        self._frame_type = 0
        #: What aiormq was given last.
        self.last_data: bytes = b""
        #: The loop's time when anything came last.
        self.last_time: float = 0.0
        #: Set by whoever connects.
        self.transport: asyncio.Transport | None = None
        #: Bytes that a frame may have. Set by whoever connects, once it is agreed upon.
        self.largest_frame: int = _LARGEST_FRAME

    def attach(self, channel: int, receiver: _Receiver) -> None:
        """Let ``receiver`` take frames of a channel from now on."""
        self._receivers[channel] = receiver

    def detach(self, channel: int, receiver: _Receiver) -> None:
        """Leave the frames of a channel to aiormq again."""
        if self._receivers.get(channel) is receiver:
            del self._receivers[channel]

    def feed_data(self, data: Any) -> None:
        self.last_time = self._clock()
        if self._ended:
            return
        self._unread.append(bytes(data))
        self._size += len(data)
        if self._size >= self._wanted and not self._interrupted:
            self._read()

    def feed_eof(self) -> None:
        self._ended = True
        super().feed_eof()

    def hold(self) -> None:
        """Read nothing more from the socket for now. That counts for no silence."""
        self._held = True
        self._pause()

    def release(self) -> None:
        """Go on reading from the socket."""
        self._held = False
        self.last_time = self._clock()
        self._resume()

    def show_life(self) -> None:
        """Let aiormq know that the connection lives, which it does not see while it is held."""
        if not self._ended:
            self._feed_aiormq(HEARTBEAT)

    @property
    def is_held(self) -> bool:
        """Whether nothing is read from the socket, because it was told so."""
        return self._held

    def _pause(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def _resume(self) -> None:
        if self._held or self._interrupted:
            return
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def _continue(self) -> None:
        self._interrupted = False
        if not self._ended:
            self._read()
            self._resume()

    def _interrupt(self) -> None:
        """Go on in the next turn of the event loop."""
        self._interrupted = True
        self._pause()
        self._call_soon(self._continue)

    def _read(self) -> None:
        try:
            self._read_frames()
        except Exception:
            logger.exception("RabbitMQ sent what can't be read; dropping the connection")
            self._ended = True
            self._unread.clear()
            if self.transport is not None:
                self.transport.abort()

    def _read_frames(self) -> None:
        data = self._unread[0] if len(self._unread) == 1 else b"".join(self._unread)
        receivers = self._receivers
        for_aiormq: list[bytes] = []
        at = begin = looked = 0
        end = len(data)
        until = self._clock() + _SLICE
        self._wanted = FRAME.size
        while end - at >= FRAME.size:
            kind, channel, size = FRAME.unpack_from(data, at)
            after = at + size + FRAME.size + 1
            if kind > _LAST_FRAME_TYPE or (after <= end and data[after - 1] != FRAME_END):
                at = end  # this is no AMQP; aiormq will say so
                self._ended = True
                break
            if size > self.largest_frame:
                raise ValueError(f"a frame of {size} bytes")
            if after > end:
                self._wanted = after - at
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
        self._unread = [data[at:]]
        self._size = end - at
        if for_aiormq:
            self._feed_aiormq(b"".join(for_aiormq))
        elif looked and until > self._sign_of_life:
            self._feed_aiormq(HEARTBEAT)
        if self._ended:
            super().feed_eof()

    def _feed_aiormq(self, data: bytes) -> None:
        self._sign_of_life = self._clock() + _SIGN_OF_LIFE
        self.last_data = data
        super().feed_data(data)

    async def readexactly(self, n: int) -> bytes:
        """Read as aiormq does it: the type of a frame, channel and size, then all the rest."""
        data = await super().readexactly(n)
        if n == 1:
            self._frame_type = data[0]
        elif n > _PREFIX and self._frame_type == HEADER:
            data = _without_broken_properties(data)
        return data


def _without_broken_properties(data: bytes) -> bytes:
    """Return the rest of a content header's frame, as one that has no properties if need be."""
    try:
        pamqp.header.ContentHeader().unmarshal(data[:-1])
    except Exception:  # whoever sent it may have written anything
        return data[:_PREFIX] + bytes(len(data) - _PREFIX - 1) + data[-1:]
    return data
