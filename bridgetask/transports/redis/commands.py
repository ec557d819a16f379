"""Commands to Redis and their answers, over one connection that many tasks share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from ...core.completion import Completion
from ...errors import BridgetaskError, ClientClosed
from .errors import RedisError, Unreachable, denied, first_error, is_elsewhere
from .pipeline import RedisPipeline
from .resp import Reply, encode

__all__ = ["RedisCommands"]


class _Request(Completion):
    """Commands that go out together, and their answers in the same order."""

    __slots__ = ("answers",)

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[Reply] = []

    def answered(self, answers: list[Reply], error: Exception | None) -> None:
        self.answers = answers
        if not self.done:
            self.complete(error)


class RedisCommands:
    """Asks for all that is wanted in one turn of the loop at once.

    :param error_of: returns the error that those who ask are told.
    :param db: the database that commands are for; None is the one that the connection is for.
    """

    def __init__(
        self,
        pipeline: RedisPipeline,
        loop: asyncio.AbstractEventLoop,
        error_of: Callable[[RedisError], BridgetaskError],
        db: int | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._loop = loop
        self._error_of = error_of
        self._db = db
        self._requests: set[_Request] = set()
        self._turn: asyncio.Handle | None = None
        self._closed = False
        pipeline.join()

    async def execute(self, *commands: Sequence[Any]) -> list[Reply]:
        """Send commands and return the answers.

        Several commands are no transaction, unless ``MULTI`` and ``EXEC`` are among them.
        Cancelling this leaves it open whether they are carried out. They are sent once more where
        the connection broke since it was last used.

        :raises BridgetaskError: what ``error_of`` makes of an answer that is an error, of having
            no connection, or of no answer in time.
        """
        try:
            stood = self._pipeline.is_open
            try:
                return await self.ask(*commands)
            except Unreachable:
                if not stood:
                    raise
            return await self.ask(*commands)
        except RedisError as error:
            raise self._error_of(error) from error.__cause__

    async def ask(self, *commands: Sequence[Any]) -> list[Reply]:
        """Send commands once, and return the answers. Cancelling this is as with :meth:`execute`.

        :raises Denied: one of the answers is an error.
        :raises Unreachable: there is no connection, or no answer in time.
        :raises ClientClosed: this was closed, before or meanwhile.
        """
        self._check_open()
        data = encode(commands)
        await self._pipeline.open()
        self._check_open()
        request = _Request()
        self._requests.add(request)
        try:
            self._pipeline.ask(data, len(commands), request.answered, self._db)
            if self._turn is None:
                self._turn = self._loop.call_soon(self._flush)
            await request.wait()
        finally:
            self._requests.discard(request)
        refusal = first_error(request.answers)
        if refusal is not None:
            error = denied("Redis refused", refusal)
            if is_elsewhere(refusal):
                self._pipeline.lose(str(error))
            raise error
        return request.answers

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosed("the client is closed")

    def _flush(self) -> None:
        self._turn = None
        self._pipeline.flush()

    async def close(self) -> None:
        """Fail what is not answered, and disconnect unless others use the connection."""
        if not self._closed:
            self._end()
            await self._pipeline.leave()

    def abort(self) -> None:
        """Disconnect on the spot."""
        self._end()
        self._pipeline.abort()

    def _end(self) -> None:
        self._closed = True
        for request in list(self._requests):
            if not request.done:
                request.complete(ClientClosed("the client was closed"))
