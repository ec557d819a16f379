"""One pub/sub connection to Redis, for any number of channels and patterns.

Commands are gathered for a turn of the loop, so that a thousand tasks cost one ``SUBSCRIBE``.
redis-py's ``PubSub`` takes one command at a time and three times as long for each message.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from ...core.completion import Completion
from .errors import Lost, RedisError, Unreachable, denied
from .resp import ErrorReply, Reply, encode
from .server import RedisServer
from .stream import RedisStream
from .watchdog import Watchdog

__all__ = ["RedisSubscriber"]

logger: logging.Logger = logging.getLogger(__name__)

#: Channels that one command names at most. Writing each down takes a microsecond.
_PER_COMMAND = 1000
#: Seconds between commands that leave channels. What is no longer wanted meanwhile is gathered.
_LEAVING = 0.1


class _Command(Completion):
    """A command on its way, done when the server has confirmed it for each channel."""

    __slots__ = ("channels", "since", "unconfirmed", "verb")

    def __init__(self, verb: str) -> None:
        super().__init__()
        self.verb = verb
        self.channels: list[bytes] = []
        self.unconfirmed = 0
        #: The loop's time when it was written.
        self.since = 0.0


class RedisSubscriber:
    """Subscribes to channels over one connection, until that is lost. Then it is of no more use.

    It is given up as well when the server refuses a subscription.

    :param on_message: called with a channel and a payload; it may not raise.
    :param on_match: called with a pattern and a payload; it may not raise.
    :param on_lost: called once, with the reason.
    """

    def __init__(
        self,
        stream: RedisStream,
        server: RedisServer,
        on_message: Callable[[bytes, bytes], None],
        on_match: Callable[[bytes, bytes], None],
        on_lost: Callable[[RedisError], None],
    ) -> None:
        self._stream = stream
        self._server = server
        self._on_message = on_message
        self._on_match = on_match
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._subscribed: set[bytes] = set()
        self._latest: _Command | None = None
        self._leaving: set[bytes] = set()
        self._left = 0.0
        self._queue: deque[_Command] = deque()
        self._outstanding: deque[_Command] = deque()
        self._turn: asyncio.Handle | None = None
        self._lost = False
        self._watchdog = Watchdog(
            stream,
            server.health_check_interval,
            server.answer_timeout,
            lambda: self._outstanding[0].since if self._outstanding else None,
            lambda: self._enqueue("PING"),
        )
        stream.start(self._replied, self._lose)

    def subscribe(self, channel: bytes) -> None:
        """Ask for a channel, unless that was done."""
        self._leaving.discard(channel)
        if channel not in self._subscribed:
            self._subscribed.add(channel)
            self._latest = self._enqueue("SUBSCRIBE", channel)

    def subscribe_pattern(self, pattern: bytes) -> None:
        """Ask for all channels whose names match a pattern."""
        self._latest = self._enqueue("PSUBSCRIBE", pattern)

    @property
    def is_confirmed(self) -> bool:
        """Whether :meth:`confirmed` has nothing to wait for."""
        latest = self._latest
        return not self._lost and (latest is None or (latest.done and latest.error is None))

    async def confirmed(self) -> None:
        """Return once no message can be missed on any channel that was asked for.

        :raises Denied: the server does not let this user subscribe.
        :raises Unreachable: the connection was lost.
        """
        if self._latest is not None:
            await self._latest.wait()  # the server answers in order

    def unsubscribe(self, channel: bytes) -> None:
        """Do without a channel before long. Messages may still come."""
        if channel not in self._subscribed:
            return
        if not self._leaving and not self._lost:
            self._loop.call_at(self._left + _LEAVING, self._leave)
        self._leaving.add(channel)

    def unsubscribe_pattern(self, pattern: bytes) -> None:
        """Do without a pattern. Messages may still come."""
        self._enqueue("PUNSUBSCRIBE", pattern)

    def _leave(self) -> None:
        self._left = self._loop.time()
        for channel in self._leaving:
            if channel in self._subscribed and not self._lost:
                self._subscribed.remove(channel)
                self._enqueue("UNSUBSCRIBE", channel)
        self._leaving.clear()

    async def catch_up(self) -> None:
        """Return once all messages are handled that were published before this was called.

        :raises Unreachable: the connection was lost.
        """
        await self._enqueue("PING").wait()

    def hold(self) -> None:
        """Handle no more messages for now."""
        self._stream.hold()

    def release(self) -> None:
        """Go on handling messages."""
        self._stream.release()

    def abort(self) -> None:
        """Disconnect on the spot. ``on_lost`` is not called."""
        self._end(Unreachable("the connection was closed"))

    def _end(self, error: RedisError) -> None:
        self._lost = True
        self._watchdog.stop()
        self._stream.abort()
        for command in [*self._outstanding, *self._queue]:
            command.complete(error)
        self._outstanding.clear()
        self._queue.clear()

    def _lose(self, error: RedisError) -> None:
        if not self._lost:
            self._end(error)
            self._on_lost(error)

    # Commands.

    def _enqueue(self, verb: str, channel: bytes | None = None) -> _Command:
        command = self._queue[-1] if self._queue else None
        if command is None or command.verb != verb or len(command.channels) >= _PER_COMMAND:
            command = _Command(verb)
            if self._lost:
                command.complete(Lost("the connection was lost"))
                return command
            self._queue.append(command)
            if self._turn is None:
                self._turn = self._loop.call_soon(self._write)
        if channel is not None:
            command.channels.append(channel)
        return command

    def _write(self) -> None:
        self._turn = None
        if not self._queue:
            return
        if not self._outstanding:
            self._watchdog.asked()
        for command in self._queue:
            command.unconfirmed = len(command.channels) or 1
            command.since = self._loop.time()
        self._stream.write(encode((each.verb, *each.channels) for each in self._queue))
        self._outstanding.extend(self._queue)
        self._queue.clear()

    # Replies.

    def _replied(self, reply: Reply) -> None:
        if type(reply) is list and len(reply) >= 3:
            kind, channel, payload = reply[0], reply[1], reply[-1]
            if type(channel) is not bytes or type(payload) is not bytes:
                kind = None
            if kind == b"message":
                self._on_message(channel, payload)
                return
            if kind == b"pmessage":
                self._on_match(channel, payload)
                return
        if not self._outstanding:
            self._stream.lose("an answer that nobody has asked for")
        elif isinstance(reply, ErrorReply):
            # A server that refuses one channel has the same to say of all.
            verb = self._outstanding[0].verb
            self._lose(denied(f"{self._server.address} refused {verb}", reply))
        else:
            self._confirmed()

    def _confirmed(self) -> None:
        """Take note of an answer. The server gives them in the order of the questions."""
        command = self._outstanding[0]
        command.unconfirmed -= 1
        if not command.unconfirmed:
            self._outstanding.popleft()
            command.complete()
