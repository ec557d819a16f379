"""The asyncio reactor: how to install it, and how coroutines run on its event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet import asyncioreactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from ..errors import InvalidOption
from .event_loops import EventLoop

__all__ = ["ReactorLoop", "install"]

T = TypeVar("T")


def install(*, uvloop: bool = False) -> None:
    """Install the asyncio reactor. Call this before anything imports ``twisted.internet.reactor``.

    :param uvloop: whether to run it on uvloop, which the extra ``bridgetask[uvloop]`` installs.
    :raises InvalidOption: uvloop is not installed.
    :raises twisted.internet.error.ReactorAlreadyInstalledError: another reactor is installed.
    """
    loop = _new_uvloop() if uvloop else asyncio.new_event_loop()
    try:
        asyncioreactor.install(loop)
    except BaseException:
        loop.close()
        raise


def _new_uvloop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        raise InvalidOption("uvloop", "is not installed: pip install bridgetask[uvloop]") from None
    return uvloop.new_event_loop()


class ReactorLoop(EventLoop):
    """The event loop that the asyncio reactor runs, in the reactor's own thread.

    :meth:`run` is the one place where a future becomes a Deferred.
    """

    #: Always: a program that forks does so before it runs the reactor.
    usable = True

    def __init__(self, reactor: asyncioreactor.AsyncioSelectorReactor) -> None:
        # No public name of Twisted's leads to it. asyncio can't be asked either: task.react calls
        # its main function before the reactor runs, when no loop is running.
        self.loop: asyncio.AbstractEventLoop = reactor._asyncioEventloop
        self._running: set[asyncio.Task[Any]] = set()

    def call(self, function: Callable[..., object], *args: Any) -> None:
        function(*args)

    def in_reactor(self, function: Callable[..., object]) -> Callable[..., object]:
        return function

    def run(
        self, coroutine: Coroutine[Any, Any, T], done: Callable[[T | Failure], object]
    ) -> Callable[[], None]:
        def translate(outcome: T | Failure) -> T | Failure:
            self._running.discard(task)
            return _translated(outcome) if isinstance(outcome, Failure) else outcome

        # A task: asyncio.timeout needs one, and Deferred.fromCoroutine can't await futures.
        task = self.loop.create_task(coroutine)
        self._running.add(task)  # asyncio does not hold a task that waits
        beneath = Deferred.fromFuture(task).addBoth(translate).addBoth(done)
        return beneath.cancel

    def release(self) -> None:
        """Do nothing: the loop is the reactor's."""


def _translated(failure: Failure) -> Failure:
    """Return what a caller is to see in place of the failure of a converted future."""
    error = failure.value
    assert error is not None
    # The first frame is that of Twisted's conversion. It refers to the task and to this failure,
    # which refer to the frame. Without it they are freed as soon as the caller drops the failure.
    if error.__traceback__ is not None:
        failure.tb = error.__traceback__ = error.__traceback__.tb_next
    return Failure(CancelledError() if isinstance(error, asyncio.CancelledError) else error)
