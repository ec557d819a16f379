"""Which session and which codec a client uses: those of the loop and the process that run."""

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
from ..transports.plugs import Plugs
from ..wire.codec import Codec
from .options import ClientOptions
from .session import Session

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["Sessions"]

#: The sessions of all clients of this process.
_all: weakref.WeakSet[Sessions] = weakref.WeakSet()


def _renew_locks() -> None:
    """Make the locks anew after a fork: the thread that held one was not copied."""
    for each in _all:
        each._making = threading.RLock()


os.register_at_fork(after_in_child=_renew_locks)


class Sessions:
    """Makes a client's session and codec when they are first needed, and closes the session.

    A session belongs to an event loop and a process. Once the loop is closed or the process
    forked, the next use makes another session. A codec belongs to a process.

    When this is collected as garbage, the session is aborted. Handles refer to it, so not before
    they are dropped, too. The client and this refer to each other, so that takes some time: a task
    that was called last before the loop ends is still sent.

    :param plug: reads the app's configuration.
    """

    def __init__(self, app: Celery, options: ClientOptions, plug: Callable[[], Plugs]) -> None:
        self.app: Celery = app
        self.options: ClientOptions = options
        #: Whether the client was closed. Set it where there is no session to close.
        self.closed: bool = False
        #: The session that was made last, or None.
        self.current: Session | None = None
        self._plug = plug
        self._configured: tuple[Plugs, Codec]
        self._process = 0  # the one that read the configuration: none yet
        #: Held while the codec or the session is made or removed. With Twisted, the reactor's
        #: thread and the loop's thread may both be the first to need them.
        self._making = threading.RLock()
        _all.add(self)

    @property
    def codec(self) -> Codec:
        """The codec of this process; the configuration is read when it is first asked for.

        :raises InvalidOption: the configuration can't be used.
        """
        if self._process != os.getpid():
            self._configure()
        return self._configured[1]

    def _configure(self) -> None:
        """Read the configuration: at the first call, since the app may be configured late.

        A forked process has a codec of its own, and with it an address for results of its own:
        the process that sends a task gets its result.
        """
        with self._making:
            if self._process == os.getpid():
                return  # another thread has done it meanwhile
            plugs = self._plug()
            reply_to = f"bridgetask.results.{uuid4()}"
            codec = plugs.codec(reply_to, max_result_size=self.options.max_result_size)
            self._configured = plugs, codec
            self._process = os.getpid()  # last: other threads look at it first

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
        """Return the session. Where there is none, make one that belongs to ``loop``.

        Any thread may call this.

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
                session = self.current = self._make(loop)
            return session

    def _make(self, loop: asyncio.AbstractEventLoop) -> Session:
        if self._process != os.getpid():
            self._configure()
        plugs, codec = self._configured
        return Session(
            plugs,
            codec,
            loop,
            send_timeout=self.options.send_timeout,
            max_in_flight=self.options.max_in_flight,
            max_queued=self.options.max_queued,
        )

    def check_open(self) -> None:
        """Raise an error if the client was closed.

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
