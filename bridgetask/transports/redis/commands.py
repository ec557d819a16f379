"""Commands to Redis and their answers, over one connection that many tasks share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from redis.asyncio.connection import Connection
from redis.exceptions import ReadOnlyError, ResponseError

from ...core.completion import Completion
from ...errors import BackendUnreachable, BridgetaskError, ClientClosed
from .connection import RedisConnector, drop
from .errors import translating

__all__ = ["RedisCommands"]

logger: logging.Logger = logging.getLogger(__name__)


class _Request(Completion):
    """Commands that go out together, and their answers in the same order."""

    __slots__ = ("answers", "commands")

    def __init__(self, commands: Sequence[tuple[Any, ...]]) -> None:
        super().__init__()
        self.commands = commands
        self.answers: list[Any] = []


class RedisCommands:
    """Pipelines all that is asked for in one turn of the loop.

    One task of its own does the talking. So cancelling those who ask can't part a question from
    its answer, and nobody ever gets the answer to another's.

    :param answer_timeout: seconds that each answer may take.
    """

    def __init__(
        self, connector: RedisConnector, answer_timeout: float, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._connector = connector
        self._answer_timeout = answer_timeout
        self._loop = loop
        self._queue: list[_Request] = []
        self._task: asyncio.Task[None] | None = None
        self._connection: Connection | None = None
        self._closed = False

    async def execute(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Send commands and return the answers.

        Several commands are no transaction, unless ``MULTI`` and ``EXEC`` are among them.
        Cancelling this leaves it open whether they are carried out.

        :raises BackendRefused: one of the answers is an error.
        :raises BackendUnreachable: no connection, or no answer in time. A connection that broke
            since it was last used is replaced first.
        """
        if self._closed:
            raise ClientClosed("the client is closed")
        request = _Request(commands)
        self._queue.append(request)
        if self._task is None:
            self._task = self._loop.create_task(self._run(), name="bridgetask Redis commands")
        await request.wait()
        return request.answers

    async def close(self) -> None:
        """Fail what is not answered, and disconnect."""
        task = self._task
        self.abort()
        if task is not None:
            await asyncio.wait([task])

    def abort(self) -> None:
        """Disconnect on the spot."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
        self._disconnect()

    async def _run(self) -> None:
        requests: list[_Request] = []
        try:
            while self._queue:
                requests, self._queue = self._queue, []
                await self._carry_out(requests)
        except asyncio.CancelledError:
            _fail([*requests, *self._queue], ClientClosed("the client was closed"))
            raise
        finally:
            self._task = None  # in the same step that found the queue empty

    async def _carry_out(self, requests: list[_Request]) -> None:
        """Get all requests answered, or failed. Only a connection that is not new may be broken."""
        try:
            if self._connection is not None:
                try:
                    await self._exchange(self._connection, requests)
                except BackendUnreachable:
                    requests = [request for request in requests if not request.done]
                else:
                    return
            self._connection = await self._connector.open()
            await self._exchange(self._connection, requests)
        except BridgetaskError as error:
            _fail(requests, error)
        except Exception as error:  # whatever it is, nobody may wait for ever
            logger.exception("Asking Redis failed")
            _fail(requests, BackendUnreachable(f"unexpected {error!r}"))

    async def _exchange(self, connection: Connection, requests: list[_Request]) -> None:
        """Write all requests, then read all answers, or lose the connection."""
        commands = [command for request in requests for command in request.commands]
        try:
            with translating("Redis did not answer"):
                async with asyncio.timeout(self._answer_timeout) as scope:
                    await connection.send_packed_command(
                        connection.pack_commands(commands), check_health=False
                    )
                    for request in requests:
                        request.answers = []
                        for _ in request.commands:
                            request.answers.append(await _answer(connection))
                            scope.reschedule(self._loop.time() + self._answer_timeout)
                        _settle(request)
        except BaseException:
            self._disconnect()
            raise

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            drop(connection)


async def _answer(connection: Connection) -> Any:
    try:
        return await connection.read_response(disable_decoding=True)
    except ReadOnlyError:  # the master is none any more: sentinels know who is
        raise
    except ResponseError as error:
        return error


def _settle(request: _Request) -> None:
    """Complete a request, or fail it with the first error among its answers."""
    nested = [each for answer in request.answers if isinstance(answer, list) for each in answer]
    for answer in [*request.answers, *nested]:
        if isinstance(answer, ResponseError):
            try:
                with translating("Redis refused"):
                    raise answer
            except BridgetaskError as error:
                request.complete(error)
                return
    request.complete()


def _fail(requests: Sequence[_Request], error: BridgetaskError) -> None:
    for request in requests:
        if not request.done:
            request.complete(error)
