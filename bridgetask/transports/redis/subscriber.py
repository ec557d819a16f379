"""One pub/sub connection to Redis, for any number of channels.

Commands are gathered for a turn of the loop, so that a thousand tasks cost one ``SUBSCRIBE``.
redis-py's ``PubSub`` takes one command at a time and three times as long for each message.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

from redis.asyncio.connection import Connection
from redis.exceptions import ResponseError

from ...core.completion import Completion
from ...errors import BackendUnreachable, BridgetaskError
from .connection import drop
from .errors import translating
from .settings import RedisSettings

__all__ = ["RedisSubscriber"]

logger: logging.Logger = logging.getLogger(__name__)

#: Channels that one command names at most. Writing each down takes a microsecond.
_PER_COMMAND = 1000
#: Messages that are handled in one turn of the loop.
_PER_TURN = 32
#: Seconds between commands that leave channels. What is no longer wanted meanwhile is gathered.
_LEAVING = 0.1


class _Command(Completion):
    """A command on its way, done when the server has confirmed it for each channel."""

    __slots__ = ("channels", "expiry", "unconfirmed", "verb")

    def __init__(self, verb: str) -> None:
        super().__init__()
        self.verb = verb
        self.channels: list[bytes] = []
        self.unconfirmed = 0
        self.expiry: asyncio.TimerHandle | None = None


class RedisSubscriber:
    """Subscribes to channels over one connection, until that is lost. Then it is of no more use.

    It is given up as well when the server refuses a subscription.

    :param on_message: called with a channel and a payload; it may not raise.
    :param on_lost: called once, with the reason.
    """

    def __init__(
        self,
        connection: Connection,
        settings: RedisSettings,
        on_message: Callable[[bytes, bytes], None],
        on_lost: Callable[[BridgetaskError], None],
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._on_message = on_message
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._subscribed: set[bytes] = set()
        self._latest: _Command | None = None
        self._leaving: set[bytes] = set()
        self._left = 0.0
        self._queue: deque[_Command] = deque()
        self._outstanding: deque[_Command] = deque()
        self._wakeup = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._released = 0.0
        self._lost = False
        self._tasks = [
            self._loop.create_task(self._until_lost(work), name="bridgetask Redis subscriber")
            for work in (self._read, self._write)
        ]

    def subscribe(self, channel: bytes) -> None:
        """Ask for a channel, unless that was done."""
        self._leaving.discard(channel)
        if channel not in self._subscribed:
            self._subscribed.add(channel)
            self._latest = self._enqueue("SUBSCRIBE", channel)

    @property
    def is_confirmed(self) -> bool:
        """Whether :meth:`confirmed` has nothing to wait for."""
        latest = self._latest
        return not self._lost and (latest is None or (latest.done and latest.error is None))

    async def confirmed(self) -> None:
        """Return once no message can be missed on any channel that was asked for.

        :raises BackendRefused: the server does not let this user subscribe.
        :raises BackendUnreachable: the connection was lost.
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

    def _leave(self) -> None:
        self._left = self._loop.time()
        for channel in self._leaving:
            if channel in self._subscribed and not self._lost:
                self._subscribed.remove(channel)
                self._enqueue("UNSUBSCRIBE", channel)
        self._leaving.clear()

    async def catch_up(self) -> None:
        """Return once all messages are handled that were published before this was called.

        :raises BackendUnreachable: the connection was lost.
        """
        await self._enqueue("PING").wait()

    def hold(self) -> None:
        """Handle no more messages for now."""
        self._room.clear()

    def release(self) -> None:
        """Go on handling messages."""
        self._room.set()
        self._released = self._loop.time()

    async def close(self) -> None:
        """Disconnect."""
        self.abort()
        await asyncio.wait(self._tasks)

    def abort(self) -> None:
        """Disconnect on the spot. ``on_lost`` is not called."""
        self._lost = True
        self._end(BackendUnreachable("the connection was closed"))

    def _end(self, error: BridgetaskError) -> None:
        for task in self._tasks:
            task.cancel()
        drop(self._connection)
        for command in [*self._outstanding, *self._queue]:
            self._settle(command, error)
        self._outstanding.clear()
        self._queue.clear()

    def _lose(self, error: BridgetaskError) -> None:
        if not self._lost:
            self._lost = True
            self._end(error)
            self._on_lost(error)

    async def _until_lost(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            with translating(f"lost the connection to {self._settings.address}"):
                await work()
        except BridgetaskError as error:
            self._lose(error)
        except Exception as error:  # whatever it is, nobody may wait for ever
            logger.exception("Receiving from Redis failed")
            self._lose(BackendUnreachable(f"unexpected {error!r}"))

    # Commands.

    def _enqueue(self, verb: str, channel: bytes | None = None) -> _Command:
        command = self._queue[-1] if self._queue else None
        if command is None or command.verb != verb or len(command.channels) >= _PER_COMMAND:
            command = _Command(verb)
            if self._lost:
                command.complete(BackendUnreachable("the connection was lost"))
                return command
            self._queue.append(command)
            self._wakeup.set()
        if channel is not None:
            command.channels.append(channel)
        return command

    async def _write(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._settings.health_check_interval):
                    await self._wakeup.wait()
            except TimeoutError:
                self._enqueue("PING")
            self._wakeup.clear()
            while self._queue:
                command = self._queue.popleft()
                command.unconfirmed = len(command.channels) or 1
                self._expire_at(self._loop.time() + self._settings.answer_timeout, command)
                self._outstanding.append(command)
                await self._connection.send_packed_command(
                    self._connection.pack_command(command.verb, *command.channels),
                    check_health=False,
                )

    def _expire_at(self, deadline: float, command: _Command) -> None:
        command.expiry = self._loop.call_at(deadline, self._expire, command)

    def _expire(self, command: _Command) -> None:
        # While this is held, and until just after, the answer may be there and not be read yet.
        now = self._loop.time()
        since = self._released if self._room.is_set() else now
        deadline = since + self._settings.answer_timeout
        if deadline > now:
            self._expire_at(deadline, command)
            return
        self._lose(BackendUnreachable(f"{self._settings.address} did not answer {command.verb}"))

    def _settle(self, command: _Command, error: BridgetaskError | None = None) -> None:
        if command.expiry is not None:
            command.expiry.cancel()
        command.complete(error)

    # Replies.

    async def _read(self) -> None:
        handled = 0
        while True:
            try:
                reply = await self._connection.read_response(disable_decoding=True)
            except ResponseError as error:
                self._refused(error)
            else:
                if isinstance(reply, list) and reply[0] == b"message":
                    self._on_message(reply[1], reply[2])
                else:
                    self._confirmed()
            handled += 1
            if handled % _PER_TURN == 0:
                await asyncio.sleep(0)
            await self._room.wait()

    def _confirmed(self) -> None:
        """Take note of an answer. The server gives them in the order of the questions."""
        command = self._outstanding[0]
        command.unconfirmed -= 1
        if not command.unconfirmed:
            self._settle(self._outstanding.popleft())

    def _refused(self, error: ResponseError) -> None:
        """Give up: a server that refuses one channel has the same to say of all."""
        verb = self._outstanding[0].verb
        with translating(f"{self._settings.address} refused {verb}"):
            raise error
