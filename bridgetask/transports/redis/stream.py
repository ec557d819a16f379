"""A connection to Redis that was opened by redis-py, read and written past it.

redis-py connects and logs in. Its parsers take an await and some 20 µs for each reply. So from then
on what the socket reads comes straight here, and goes to whoever uses the connection, in slices of
2 ms. This relies on redis-py's connections having a ``StreamReader`` and a ``StreamWriter``, as
``_reader`` and ``_writer``; all tests of this folder would tell if they had not.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from redis.asyncio.connection import Connection

from ...core.completion import Completion
from .errors import Lost, text_of
from .resp import ProtocolError, RepliesDecoder, Reply

__all__ = ["RedisStream", "drop"]

#: Seconds that replies are handed over for in one turn of the loop, and how many of them there are
#: between two looks at the clock.
_SLICE, _BETWEEN_LOOKS = 0.002, 8


class RedisStream(asyncio.Protocol):
    """Reads replies, and writes commands, until the connection is lost.

    :param connection: redis-py's, connected and logged in. It is taken over.
    :param address: the server's, for errors.
    """

    def __init__(self, connection: Connection, address: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._address = address
        reader, writer = connection._reader, connection._writer
        connection._reader = connection._writer = None  # else redis-py closes it once more
        assert reader is not None
        assert writer is not None
        self._writer = writer  # it closes the connection when it is collected
        self._transport: asyncio.WriteTransport = writer.transport
        self._decoder = RepliesDecoder()
        self._on_reply: Callable[[Reply], None] | None = None
        self._on_lost: Callable[[Lost], None] | None = None
        self._waiting: deque[Reply] = deque()
        self._turn: asyncio.Handle | None = None
        self._held = False
        self._paused = False
        self._error: Lost | None = None
        self._room: Completion | None = None
        #: The loop's time when anything came last, or might have come but for being held.
        self.heard: float = self._loop.time()
        self._transport.set_protocol(self)
        if reader.at_eof() or self._transport.is_closing():  # before this could hear of it
            self._lose("the connection was closed")

    def start(self, on_reply: Callable[[Reply], None], on_lost: Callable[[Lost], None]) -> None:
        """Begin to hand over replies.

        :param on_reply: called with each; it may not raise.
        :param on_lost: called once, after that, with the reason, unless :meth:`abort` was.
        """
        self._on_reply, self._on_lost = on_reply, on_lost
        if self._waiting or self._error is not None:
            self._turn = self._loop.call_soon(self._hand_over)

    @property
    def is_lost(self) -> bool:
        """Whether it is of no more use."""
        return self._error is not None or self._transport.is_closing()

    # Writing.

    def write(self, data: bytes) -> None:
        """Write commands."""
        if not self.is_lost:
            self._transport.write(data)

    @property
    def unwritten(self) -> int:
        """How many bytes the socket has not taken yet."""
        return 0 if self.is_lost else self._transport.get_write_buffer_size()

    async def drain(self) -> None:
        """Return when the socket takes more, or the connection is lost."""
        if self._room is not None:
            await self._room.wait()

    def pause_writing(self) -> None:
        self._room = Completion()

    def resume_writing(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.complete()

    # Reading.

    def data_received(self, data: bytes) -> None:
        self.heard = self._loop.time()
        try:
            self._waiting.extend(self._decoder.feed(data))
        except ProtocolError as error:
            self._lose(f"this is no Redis: {error}")
            return
        if self._turn is None:
            self._hand_over()

    def eof_received(self) -> None:
        self._lose("the server closed the connection")

    def connection_lost(self, error: Exception | None) -> None:
        self._lose("the connection was closed" if error is None else text_of(error))

    def hold(self) -> None:
        """Hand over, and read, no more replies for now."""
        self._held = True
        self._pause()

    def release(self) -> None:
        """Go on."""
        if self._held:
            self._held = False
            self.heard = self._loop.time()
            if self._turn is None:
                self._turn = self._loop.call_soon(self._hand_over)

    @property
    def is_held(self) -> bool:
        """Whether nothing is read for now."""
        return self._held

    def _hand_over(self) -> None:
        self._turn = None
        waiting, until, handed = self._waiting, self._loop.time() + _SLICE, 0
        while waiting and not self._held and self._on_reply is not None:
            self._on_reply(waiting.popleft())
            handed += 1
            if handed % _BETWEEN_LOOKS == 0 and self._loop.time() >= until:
                break
        if self._error is not None and (self._held or not waiting):
            self._tell_loss()
        elif waiting and not self._held and self._on_reply is not None:
            self._pause()
            self._turn = self._loop.call_soon(self._hand_over)
        elif self._paused and not self._held:
            self._paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def _pause(self) -> None:
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    # The end.

    def abort(self) -> None:
        """Close the connection on the spot. What is on its way is lost, and nobody told."""
        self._on_reply = self._on_lost = None
        self._lose("the connection was closed")

    def lose(self, reason: str) -> None:
        """Give the connection up."""
        self._lose(reason)

    def _lose(self, reason: str) -> None:
        if self._error is None:
            self._error = Lost(f"lost the connection to {self._address}: {reason}")
            self.resume_writing()
            self._transport.abort()
            if self._turn is None and self._on_lost is not None:
                self._turn = self._loop.call_soon(self._hand_over)

    def _tell_loss(self) -> None:
        self._waiting.clear()
        on_lost, self._on_lost, self._on_reply = self._on_lost, None, None
        if on_lost is not None:
            assert self._error is not None
            on_lost(self._error)


def drop(connection: Connection) -> None:
    """Close a connection of redis-py's on the spot. What was on its way is lost."""
    writer = connection._writer
    connection._reader = connection._writer = None  # else redis-py warns, and closes it once more
    if writer is not None:
        writer.transport.abort()
