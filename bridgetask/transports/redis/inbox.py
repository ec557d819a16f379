"""A list in Redis that workers push messages for this client to, over a connection of its own.

Celery's client pops one message after the other, and what was popped for a connection that is lost
is lost with it. Here ``BLMOVE`` from one end of the list to that same end waits for a message, and
leaves it there. What is there is read with it in the same round trip, and removed by the next one.
So what comes while the connection is down is there after it, and a message may come twice.

A server that has no ``BLMOVE``, or does not let this user have it, is asked as Celery asks it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence

from ...core.completion import Completion
from ...errors import BridgetaskError, ClientClosed
from .commands import RedisCommands
from .errors import Denied, RedisError, broker_error
from .pipeline import Connector, RedisPipeline
from .resp import Reply

__all__ = ["RedisInbox"]

logger: logging.Logger = logging.getLogger(__name__)

#: Seconds that the server waits for a message before it says that there is none.
_WAITS = 10
#: How many messages are read at once, how many bytes of them are aimed at, and how many messages
#: are handed over in one turn of the loop.
_MOST, _BYTES, _PER_TURN = 500, 4 * 1024 * 1024, 32
#: Seconds between attempts to connect again: at first, and at most.
_BACK_OFF = 0.1, 2.0


class RedisInbox:
    """Hands over what is pushed to a list, across lost connections.

    :param keys: those of the list, one for each priority, the usual one first.
    :param wanted: whether to connect again at once after a loss, or only at the next start.
    :param on_message: called with each message; it may not raise.
    :param on_interrupted: called when messages are not read any more.
    """

    def __init__(
        self,
        connector: Connector,
        keys: Sequence[str],
        loop: asyncio.AbstractEventLoop,
        *,
        wanted: Callable[[], bool],
        on_message: Callable[[bytes], None],
        on_interrupted: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._keys = keys
        self._wanted = wanted
        self._on_message = on_message
        self._on_interrupted = on_interrupted
        self._commands = RedisCommands(
            RedisPipeline(connector, loop, patience=_WAITS), loop, broker_error
        )
        self._task: asyncio.Task[None] | None = None
        self._started: Completion | None = None
        self._consuming = False
        self._pops = False
        self._batch = _PER_TURN
        self._room = asyncio.Event()
        self._room.set()
        self._closed = False
        #: Whether this was ever started, so that there may be something in the list.
        self.used: bool = False

    @property
    def consuming(self) -> bool:
        """Whether messages are read, as far as this side knows."""
        return self._consuming

    async def start(self) -> None:
        """Return once messages can come.

        :raises SendError: that was not possible.
        :raises ClientClosed: this was closed, before or meanwhile.
        """
        if self._closed:
            raise ClientClosed("the client was closed")
        if self._consuming:
            return
        self.used = True
        if self._started is None or self._started.done:
            self._started = Completion()
        if self._task is None or self._task.done():
            self._task = self._loop.create_task(self._run(), name="bridgetask Redis inbox")
            self._task.add_done_callback(self._ended)
        await self._started.wait()

    def hold(self) -> None:
        """Read no more messages for now. They stay in the list."""
        self._room.clear()

    def release(self) -> None:
        """Go on reading."""
        self._room.set()

    async def close(self) -> None:
        """Stop reading."""
        task = self._end()
        if task is not None:
            await asyncio.wait([task])
        await self._commands.close()

    def abort(self) -> None:
        """Stop reading on the spot."""
        self._end()
        self._commands.abort()

    def _end(self) -> asyncio.Task[None] | None:
        self._closed = True
        if self._task is not None:
            self._task.cancel()
        return self._task

    # Connecting.

    async def _run(self) -> None:
        delay, longest = _BACK_OFF
        while True:
            error: Exception
            try:
                await self._commands.ask(("PING",))
                self._begin()
                delay = _BACK_OFF[0]
                await self._consume()
            except (RedisError, BridgetaskError) as reason:
                error = reason
            except Exception as reason:  # whatever it is, nobody may wait for ever
                logger.exception("Receiving from Redis failed")
                error = reason
            self._interrupt(error)
            if not self._wanted():
                return
            logger.warning("%s. Connecting again", error)
            await asyncio.sleep(delay * random.uniform(0.8, 1.2))
            delay = min(delay * 2, longest)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Take note that nothing is read any more, where the task was cancelled, too."""
        if self._task is task:
            self._task = None
        if task.cancelled():
            self._interrupt(ClientClosed("the client was closed"))

    def _begin(self) -> None:
        self._consuming = True
        if self._started is not None and not self._started.done:
            self._started.complete()

    def _interrupt(self, error: Exception) -> None:
        consuming, self._consuming = self._consuming, False
        if self._started is not None and not self._started.done:
            told = broker_error(error) if isinstance(error, RedisError) else error
            self._started.complete(told)
        if consuming and not self._closed:
            self._on_interrupted()

    # Reading.

    async def _consume(self) -> None:
        read: dict[str, int] = {}
        while True:
            await self._room.wait()
            if self._pops:
                await self._pop()
                continue
            try:
                messages = await self._peek(read)
            except Denied as error:
                if read:
                    raise
                logger.debug("%s: popping messages instead", error)
                self._pops = True
                continue
            read = {key: len(each) for key, each in messages.items()}
            for each in messages.values():
                await self._hand_over(each[::-1])

    async def _peek(self, read: dict[str, int]) -> dict[str, list[bytes]]:
        """Remove what was read, wait for more, and return it by key, the latest first."""
        remove = [("LTRIM", key, 0, -1 - count) for key, count in read.items()]
        usual, *others = self._keys
        wait = ("BLMOVE", usual, usual, "RIGHT", "RIGHT", _WAITS)
        *_, found, messages = await self._commands.ask(*remove, wait, self._read(usual))
        if found is not None:
            self._adapt(messages)
            return {usual: messages}
        answers = await self._commands.ask(*map(self._read, others)) if others else []
        return {key: each for key, each in zip(others, answers, strict=True) if each}

    def _read(self, key: str) -> tuple[Reply, ...]:
        return ("LRANGE", key, -self._batch, -1)

    def _adapt(self, messages: list[bytes]) -> None:
        """Read more at once where messages are small."""
        size = sum(map(len, messages)) // max(1, len(messages))
        self._batch = max(1, min(_MOST, _BYTES // max(1, size)))

    async def _pop(self) -> None:
        """Wait for a message, and remove it with the same command."""
        (found,) = await self._commands.ask(("BRPOP", *self._keys, _WAITS))
        if found is not None:
            self._on_message(found[1])

    async def _hand_over(self, messages: list[bytes]) -> None:
        for number, message in enumerate(messages, 1):
            self._on_message(message)
            if number % _PER_TURN == 0:
                await asyncio.sleep(0)
                await self._room.wait()
