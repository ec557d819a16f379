"""Which session and which wire a client uses: those of the event loop and the process that run."""

from __future__ import annotations

import asyncio
import os
import threading
import warnings
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from ..errors import ClientClosed, WrongEventLoop
from ..settings import Settings
from ..wire.codec import Wire
from .options import ClientOptions
from .session import Connect, Session

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["Sessions"]

#: Those of this process.
_all: weakref.WeakSet[Sessions] = weakref.WeakSet()


def _renew_locks() -> None:
    """Make the locks anew after a fork: the thread that held one was not copied."""
    for each in _all:
        each._making = threading.RLock()


os.register_at_fork(after_in_child=_renew_locks)


class Sessions:
    """Makes a client's session and wire when they are first needed, and closes the session.

    A session belongs to an event loop and a process. Once the loop is closed or the process
    forked, the next use makes another session. A wire belongs to a process.

    Collecting this aborts the session: see :class:`bridgetask.asyncio_impl.handle.Caller`.

    :param read_settings: reads the app's configuration.
    :param connect: makes the transports of a session.
    """

    def __init__(
        self,
        app: Celery,
        options: ClientOptions,
        read_settings: Callable[..., Settings],
        connect: Connect,
    ) -> None:
        self.app: Celery = app
        self.options: ClientOptions = options
        self.connect: Connect = connect
        #: Whether no session will be made any more. Set it to refuse all further calls.
        self.closed: bool = False
        #: The session that was made last, or None.
        self.current: Session | None = None
        self._read_settings = read_settings
        self._wire: Wire
        self._process = 0  # the one whose wire it is: none yet
        #: Held while the wire or the session is made, or taken away: with Twisted, the reactor's
        #: thread and the loop's may both be the first to need them.
        self._making = threading.RLock()
        _all.add(self)

    @property
    def wire(self) -> Wire:
        """The builder of messages: made at the first call, since the app may be configured late.

        A forked process makes one of its own, so that the process that sends a task gets its
        result.
        """
        if self._process == os.getpid():
            return self._wire
        with self._making:
            if self._process != os.getpid():  # else another thread has made it meanwhile
                self._wire = Wire.of(
                    self.app,
                    f"bridgetask.results.{uuid4()}",
                    read_settings=self._read_settings,
                    heartbeat=self.options.heartbeat,
                    max_in_flight=self.options.max_in_flight,
                    max_result_size=self.options.max_result_size,
                )
                self._process = os.getpid()  # last: it vouches for the wire
            return self._wire

    def running(self) -> Session:
        """Return the session of the event loop that runs.

        :raises ClientClosed: the client was closed.
        :raises WrongEventLoop: the client belongs to another event loop, or none is running.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise WrongEventLoop("no event loop is running: call this from a coroutine") from None
        session = self.on(loop)
        if session.closed or session.loop is not loop:
            session.check_loop()  # it raises
        return session

    def on(self, loop: asyncio.AbstractEventLoop) -> Session:
        """Return the session, after making one on ``loop`` where there is none. From any thread.

        :raises ClientClosed: the client was closed.
        """
        self.check_open()
        session = self.current
        if session is not None and session.usable:
            return session
        with self._making:
            self.check_open()
            session = self.current  # another thread may have made it meanwhile
            if session is None or not session.usable:
                session = self.current = Session(
                    self.wire,
                    loop,
                    self.connect,
                    send_timeout=self.options.send_timeout,
                    max_queued=self.options.max_queued,
                )
            return session

    def check_open(self) -> None:
        """Refuse to go on where the client was closed.

        :raises ClientClosed: it was.
        """
        if self.closed:
            raise ClientClosed("the client is closed")

    async def close(self) -> None:
        """Close the session, and refuse to make another one.

        :raises WrongEventLoop: the session belongs to another event loop that still runs.
        """
        self.closed = True
        with self._making:
            session, self.current = self.current, None
        if session is None or not session.usable:
            return
        if asyncio.get_running_loop() is not session.loop:
            self.current = session
            raise WrongEventLoop("the client belongs to another event loop than the one that runs")
        await session.close(self.options.close_timeout)

    def __del__(self, _warn: Any = warnings.warn) -> None:
        session = self.current
        if session is None or session.closed or not session.usable:
            return
        _warn(f"unclosed {self}", ResourceWarning, source=self)
        try:
            session.loop.call_soon_threadsafe(session.abort)
        except RuntimeError:  # the loop was closed in this moment
            session.closed = True

    def __str__(self) -> str:
        state = "closed" if self.closed else "open" if self.current else "idle"
        return f"<Client of {self.app.main or 'a Celery app'} {state}>"
