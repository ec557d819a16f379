"""Decodes results: small ones at once, large ones on a thread.

Decoding a large result on the event loop would block it. The thread decodes JSON in steps, so that
the loop can run in between. There is one thread, so that results keep their order: a result that
follows a large one of the same task waits for it. Results can arrive faster than they can be
decoded; when too many bytes wait, the connection is told to read no more for now.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from ..errors import ClientClosed, ResultUndecodable
from ..wire.results import TaskUpdate

__all__ = ["Decode", "Decoding"]

#: Decodes a message, in steps if told so. Raises nothing but ``ResultUndecodable``.
Decode = Callable[[bool], TaskUpdate]

#: Bytes that may wait for the thread before nothing more is to be read.
_FULL = 64 * 1024 * 1024


class Decoding:
    """Decodes results, on the event loop or on its thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread: ThreadPoolExecutor | None = None
        self._closed = False
        #: How many messages of a task are on the thread.
        self._on_thread: Counter[str | None] = Counter()
        #: How many bytes there are of them.
        self._backlog = 0
        #: Called when there is too much of it for anything more, and when there is room again.
        self.on_full: Callable[[], None] = lambda: None
        self.on_room: Callable[[], None] = lambda: None

    def take(
        self,
        decode: Decode,
        task_id: str | None,
        deliver: Callable[[TaskUpdate], None],
        fail: Callable[[ResultUndecodable], None],
        *,
        size: int,
        slow: bool,
    ) -> None:
        """Decode a message and deliver it, now or later, unless this is closed by then.

        :param task_id: messages of one task are delivered in their order.
        :param size: how many bytes the message has.
        :param slow: whether decoding may take more than a few milliseconds.
        """
        if self._closed:
            return
        if slow or task_id in self._on_thread:
            self._on_thread[task_id] += 1
            self._backlog += size
            if self._backlog >= _FULL:
                self.on_full()
            decoding = self._start(decode)
            decoding.add_done_callback(partial(self._decoded, task_id, size, deliver, fail))
            return
        try:
            update = decode(False)
        except ResultUndecodable as error:
            fail(error)
        else:
            deliver(update)

    async def decode(self, decode: Decode, *, slow: bool) -> TaskUpdate:
        """Return the decoded message. Cancelling this drops the result of the decoding.

        :raises ResultUndecodable: it can't be read.
        :raises ClientClosed: this was closed first.
        """
        if not slow:
            return decode(False)
        try:
            return await self._start(decode)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closed and task is not None and not task.cancelling():
                raise ClientClosed("the client was closed") from None
            raise

    def _start(self, decode: Decode) -> asyncio.Future[TaskUpdate]:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="bridgetask decoding")
        return self._loop.run_in_executor(self._thread, decode, True)

    def _decoded(
        self,
        task_id: str | None,
        size: int,
        deliver: Callable[[TaskUpdate], None],
        fail: Callable[[ResultUndecodable], None],
        decoding: asyncio.Future[TaskUpdate],
    ) -> None:
        self._on_thread[task_id] -= 1
        if not self._on_thread[task_id]:
            del self._on_thread[task_id]
        was_full = self._backlog >= _FULL
        self._backlog -= size
        if was_full and self._backlog < _FULL:
            self.on_room()
        if decoding.cancelled():
            return
        error = decoding.exception()
        if self._closed:
            return
        if error is None:
            deliver(decoding.result())
        elif isinstance(error, ResultUndecodable):
            fail(error)
        else:
            raise error

    def close(self) -> None:
        """Decode nothing more. What is being decoded is dropped."""
        self._closed = True
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)
