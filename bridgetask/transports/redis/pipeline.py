"""One connection to Redis that commands are pipelined over, by all who share it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Protocol

from ...core.completion import Completion
from ...errors import ClientClosed
from .errors import Lost, denied, first_error
from .opening import Opening
from .resp import Reply, encode
from .server import RedisServer
from .stream import RedisStream
from .watchdog import Watchdog

__all__ = ["Connector", "OnAnswers", "RedisPipeline"]

logger: logging.Logger = logging.getLogger(__name__)

#: Takes the answers to what was asked. Where it also takes an error, the last of them are missing.
OnAnswers = Callable[[list[Reply], Exception | None], None]


class Connector(Protocol):
    """Opens connections to a server."""

    @property
    def server(self) -> RedisServer:
        """The server that is connected to."""

    async def open(self) -> RedisStream:
        """Connect, and log in.

        :raises RedisError: that was not possible.
        """

    def serves(self, server: RedisServer) -> bool:
        """Tell whether its connections lead to a server, whatever their database is."""

    def turned_away(self) -> None:
        """Take note that the server is not the one to write to, though it can be connected to."""


class _Asked:
    """Commands on their way, and the answers to them that have come."""

    __slots__ = ("answers", "count", "on_answers", "since")

    def __init__(self, count: int, on_answers: OnAnswers, since: float) -> None:
        self.count = count
        self.on_answers = on_answers
        self.since = since
        self.answers: list[Reply] = []


class RedisPipeline:
    """Writes what is asked for, in order, and hands each answer to who has asked for it.

    Nobody can withdraw a question, so nobody ever gets the answer to another's. A connection that
    is lost is opened again when somebody asks for that.

    :param connector: opens the connection.
    :param patience: seconds that an answer may take beyond what the server may.
    """

    def __init__(
        self, connector: Connector, loop: asyncio.AbstractEventLoop, *, patience: float = 0.0
    ) -> None:
        self._connector = connector
        self._loop = loop
        self._patience = patience
        self._opening = Opening(self._connect, "bridgetask Redis")
        self._stream: RedisStream | None = None
        #: Done when everybody has learned of the loss of the last connection.
        self._all_told = Completion()
        self._all_told.complete()
        self._watchdog: Watchdog | None = None
        self._out: list[bytes] = []
        self._asked: deque[_Asked] = deque()
        self._db = self._own_db = 0
        self._users = 0
        #: Called with each loss of the connection, after those who wait for answers.
        self.on_lost: list[Callable[[], None]] = []

    def join(self) -> None:
        """Take note of one more user, who is to leave."""
        self._users += 1

    async def leave(self) -> None:
        """Disconnect, if this was the last user."""
        self._users -= 1
        if not self._users:
            self.abort()
            await self._opening.ended()

    def abort(self) -> None:
        """Disconnect on the spot, whoever uses it."""
        self._opening.cancel()
        if self._stream is not None:
            self._stream.abort()
            self._ended(ClientClosed("the client was closed"))

    # The connection.

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, as far as this side knows."""
        return self._stream is not None and not self._stream.is_lost

    @property
    def server(self) -> RedisServer:
        """The server that was connected to last, or is to be."""
        return self._connector.server

    async def open(self) -> None:
        """Connect, unless connected.

        :raises RedisError: that was not possible.
        :raises ClientClosed: this was closed, before or meanwhile.
        """
        if not self.is_open:
            await self._opening.wait()

    async def _connect(self) -> None:
        await self._all_told.wait()  # those who had asked by the last one learn of its loss first
        stream = await self._connector.open()
        server = self._connector.server
        self._db = self._own_db = server.db
        self._stream, self._all_told = stream, Completion()
        self._watchdog = Watchdog(
            stream,
            server.health_check_interval,
            server.answer_timeout + self._patience,
            lambda: self._asked[0].since if self._asked else None,
            self._ping,
        )
        stream.start(self._replied, self._ended)

    def lose(self, reason: str) -> None:
        """Give up the connection: its server is not the one to talk to."""
        self._connector.turned_away()
        if self._stream is not None:
            self._stream.lose(reason)

    def _ended(self, error: Exception) -> None:
        self._stream = None
        if self._watchdog is not None:
            self._watchdog.stop()
        self._out.clear()
        asked, self._asked = self._asked, deque()
        for each in reversed(asked):  # who puts things back does so before those that came after
            self._answered(each, error)
        for on_lost in self.on_lost:
            on_lost()
        self._all_told.complete()

    # Questions and answers.

    def ask(
        self, commands: bytes, count: int, on_answers: OnAnswers, db: int | None = None
    ) -> None:
        """Take commands, to be written with the next :meth:`flush`.

        :param count: how many they are.
        :param on_answers: called once.
        :param db: the database that they are for; None is the one that the connection is for.
        """
        if not self.is_open:
            on_answers([], Lost("the connection was lost"))
            return
        self._select(self._own_db if db is None else db)
        self._append(commands, count, on_answers)

    def _append(self, commands: bytes, count: int, on_answers: OnAnswers) -> None:
        if not self._asked and self._watchdog is not None:
            self._watchdog.asked()
        self._out.append(commands)
        self._asked.append(_Asked(count, on_answers, self._loop.time()))

    def _select(self, db: int) -> None:
        if db != self._db:
            self._db = db
            self._append(encode([("SELECT", db)]), 1, self._selected)

    def _selected(self, answers: list[Reply], error: Exception | None) -> None:
        refusal = first_error(answers)
        if refusal is not None and self._stream is not None:
            self._stream.lose(str(denied("SELECT", refusal)))

    def flush(self) -> None:
        """Write what was asked for."""
        if self._out and self._stream is not None:
            self._stream.write(b"".join(self._out))
            self._out.clear()

    async def drain(self) -> None:
        """Write what was asked for, and return when the socket takes more."""
        self.flush()
        if self._stream is not None:
            await self._stream.drain()

    def _ping(self) -> None:
        self.ask(encode([("PING",)]), 1, lambda *_: None)
        self.flush()

    def _replied(self, reply: Reply) -> None:
        if not self._asked:
            if self._stream is not None:
                self._stream.lose("an answer that nobody has asked for")
            return
        asked = self._asked[0]
        asked.answers.append(reply)
        if len(asked.answers) == asked.count:
            self._asked.popleft()
            self._answered(asked, None)

    def _answered(self, asked: _Asked, error: Exception | None) -> None:
        try:
            asked.on_answers(asked.answers, error)
        except Exception:  # whatever it is, the next answer is for somebody else
            logger.exception("An answer of Redis could not be handled")
