"""The stream of events that workers send about themselves and about tasks."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..core.completion import Completion
from ..errors import BridgetaskError, InvalidOption
from ..wire.events import EventCapture
from .session import Session

if TYPE_CHECKING:
    from celery import Celery
    from celery.events.state import State

    from ..core.receiving import Subscription

__all__ = ["Events", "capture_events", "close_soon"]

logger: logging.Logger = logging.getLogger(__name__)


class Events(AsyncIterator[dict[str, Any]]):
    """Events of workers and tasks, in the order in which they arrive.

    .. code-block:: python

        async for event in client.events():
            print(event["type"], event.get("uuid"))

        # Captures from here on, whenever the events are read.
        async with client.events(["task-succeeded", "task-failed"]) as events:
            await client.control.enable_events()
            async for event in events:
                print(events.state.tasks[event["uuid"]].info())

    Made by :meth:`bridgetask.Client.events`. The capture ends, and its queue is deleted, when the
    block or the loop is left or this is dropped. Cancelling an iteration harms nothing, and it can
    be continued. A lost connection is opened again; events that workers send meanwhile are missed,
    which is logged as a warning.

    Follows ``celery.events.receiver.EventReceiver``.
    """

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream

    @property
    def state(self) -> State:
        """Celery's ``State``: workers and tasks, as of the latest event that arrived."""
        return self._stream.capture.state

    @property
    def dropped(self) -> int:
        """How many events were dropped, the oldest first, since too many waited to be read."""
        return self._stream.dropped

    @property
    def interruptions(self) -> int:
        """How often the connection was lost. Events that were sent meanwhile are missed."""
        return self._stream.interruptions

    async def start(self) -> None:
        """Return once no event is missed any more. Iterating does that by itself.

        If this is cancelled, it can be called again.

        :raises BrokerUnreachable: no broker could be connected to within ``send_timeout``.
        :raises Refused: the broker refused to connect, or to declare the queue.
        """
        await self._stream.start()

    async def aclose(self) -> None:
        """End the capture, and delete its queue. It can be started again."""
        await self._stream.close()

    async def __aenter__(self) -> Events:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __anext__(self) -> Coroutine[Any, Any, dict[str, Any]]:
        # A coroutine of this object's own would hold it, by the traceback of a cancelled one.
        return self._stream.next()

    def __del__(self) -> None:
        self._stream.close_soon()

    def __repr__(self) -> str:
        return f"<Events {self._stream.capture.queue}>"


def capture_events(
    app: Celery,
    running: Callable[[], Session],
    wake: Callable[[], Awaitable[object]],
    types: Collection[str] | None,
    routing_key: str,
    wakeup: bool,
    buffer_limit: int,
    state: State | None,
) -> Events:
    """Return a capture that is yet to be started; see :meth:`bridgetask.Client.events`.

    :param running: returns the session of the event loop that runs.
    :param wake: makes workers send a heartbeat; called where ``wakeup`` is set.
    :raises InvalidOption: naming the argument that can't be used.
    """
    if types is not None and (isinstance(types, str) or not isinstance(types, Collection)):
        raise InvalidOption("types", f"must be a collection of event types, not {types!r}")
    if not isinstance(routing_key, str):
        raise InvalidOption("routing_key", f"must be a string, not {routing_key!r}")
    if not isinstance(buffer_limit, int) or buffer_limit < 1:
        raise InvalidOption(
            "buffer_limit", f"must be a positive whole number, not {buffer_limit!r}"
        )
    if state is not None and not callable(getattr(state, "event", None)):
        raise InvalidOption("state", f"must be a celery.events.state.State, not {state!r}")
    capture = EventCapture(app, routing_key, state)
    return Events(_Stream(running, capture, types, buffer_limit, wake if wakeup else None))


def close_soon(events: Events) -> None:
    """End a capture without waiting for that. Any thread may call this."""
    events._stream.close_soon()


class _Stream:
    """Captures for an :class:`Events`, and does not refer to it, so that it may be dropped."""

    def __init__(
        self,
        running: Callable[[], Session],
        capture: EventCapture,
        types: Collection[str] | None,
        buffer_limit: int,
        wake: Callable[[], Awaitable[object]] | None,
    ) -> None:
        self.capture = capture
        self.dropped: int = 0
        self.interruptions: int = 0
        self._running = running
        self._types = types
        self._buffer: deque[dict[str, Any]] = deque()
        self._buffer_limit = buffer_limit
        self._wake = wake
        self._news = Completion()
        self._dropping = False
        self._error: BridgetaskError | None = None
        self._session: Session | None = None
        self._subscription: Subscription | None = None
        self._started = False
        self._closed = False
        self._waking: asyncio.Task[None] | None = None
        #: Held while the queue is deleted, which the next start declares under the same name.
        self._ending = asyncio.Lock()
        self._closing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._closed = False
        await self._begin()

    async def _begin(self) -> None:
        async with self._ending:
            if self._session is None:
                self._session = self._running()
            if self._subscription is None:
                self._subscription = self._session.subscribe(self.capture, self)
            self._session.check_loop()
        if not self._started:
            subscription = self._subscription
            await self._session.start(subscription)
            if subscription is self._subscription:  # else this was closed meanwhile
                self._started = True  # from now on the subscription starts itself again

    async def next(self) -> dict[str, Any]:
        while not self._buffer:
            if self._error is not None:
                raise self._error
            if self._closed:
                raise StopAsyncIteration
            if self._news.done:
                self._news = Completion()
            await self._begin()
            if not self._buffer:
                await self._news.wait()
        event = self._buffer.popleft()
        self._dropping = self._dropping and bool(self._buffer)
        return event

    async def close(self) -> None:
        self._closed = True
        self._news.complete()
        async with self._ending:
            subscription, self._subscription = self._subscription, None
            self._started = False
            if self._waking is not None:
                self._waking.cancel()
                await asyncio.wait([self._waking])
            if self._session is not None and subscription is not None:
                await self._session.unsubscribe(subscription)

    def close_soon(self) -> None:
        """Close without waiting for that. Any thread may call this."""
        if self._session is None or self._closed or self._error is not None:
            return
        with suppress(RuntimeError):  # the loop was closed in this moment
            self._session.loop.call_soon_threadsafe(self._start_closing)

    def _start_closing(self) -> None:
        self._closing = asyncio.get_running_loop().create_task(self.close())

    # Called by the transport; see EventListener:

    def push(self, event: dict[str, Any]) -> None:
        if self._types is not None and event["type"] not in self._types:
            return
        self._buffer.append(event)
        if len(self._buffer) > self._buffer_limit:
            self._buffer.popleft()
            self.dropped += 1
            if not self._dropping:
                self._dropping = True
                logger.warning(
                    "Events are dropped: nobody took the %d that wait", self._buffer_limit
                )
        self._news.complete()

    def consuming(self) -> None:
        if self._wake is not None and (self._waking is None or self._waking.done()):
            waking = self._wake_workers(self._wake)
            self._waking = asyncio.get_running_loop().create_task(waking)

    def interrupted(self) -> None:
        self.interruptions += 1
        logger.warning("Events are missed until they can be consumed again")

    def fail(self, error: BridgetaskError) -> None:
        self._error = error
        self._news.complete()
        if self._waking is not None:
            self._waking.cancel()

    async def _wake_workers(self, wake: Callable[[], Awaitable[object]]) -> None:
        try:
            await wake()
        except BridgetaskError as error:  # they send a heartbeat now and then by themselves
            logger.debug("Could not wake the workers: %s", error)
