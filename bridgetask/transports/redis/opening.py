"""Something that is opened once for all who ask for it meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from ...core.completion import Completion
from ...errors import BridgetaskError, ClientClosed
from .errors import RedisError, Unreachable

__all__ = ["Opening"]

logger: logging.Logger = logging.getLogger(__name__)


class Opening:
    """Opens something in a task of its own, so that cancelling one who waits touches nobody else.

    :param work: opens it.
    :param name: the task's.
    """

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        self._work = work
        self._name = name
        self._attempt: Completion | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def wait(self) -> None:
        """Return once it is open.

        :raises ClientClosed: this was cancelled, before or meanwhile.
        :raises RedisError: what opening it has raised.
        """
        if self._closed:
            raise ClientClosed("the client is closed")
        if self._attempt is None:
            self._attempt = Completion()
            self._task = asyncio.get_running_loop().create_task(self._work(), name=self._name)
            self._task.add_done_callback(partial(self._ended, self._attempt))
        await self._attempt.wait()

    def _ended(self, attempt: Completion, task: asyncio.Task[None]) -> None:
        """Tell those who wait. A task may be cancelled before its first step, too."""
        if self._attempt is attempt:
            self._attempt = None
        closed = ClientClosed("the client was closed")
        error: BaseException | None = closed if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, (BridgetaskError, RedisError)):
            # Whatever it is, nobody may wait for ever.
            logger.error("Connecting to Redis failed", exc_info=error)
            error = Unreachable(f"unexpected {error!r}")
        attempt.complete(error)

    def cancel(self) -> None:
        """Never open it again."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()

    async def stop(self) -> None:
        """Give up what is under way, if anything is. It may be begun again."""
        if self._task is not None:
            self._task.cancel()
        await self.ended()

    async def ended(self) -> None:
        """Return once nothing is under way."""
        if self._task is not None and not self._task.done():
            await asyncio.wait([self._task])
