"""The client for Twisted programs. It converts, and only converts."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred

from ..asyncio_impl.client import Client
from ..asyncio_impl.submission import Submission
from . import client_internals
from .control import TwistedControl
from .deferreds import for_each
from .event_loops import EventLoop
from .events import DeferredEvents
from .result import DeferredTask
from .runner import Runner
from .signatures import unwrapped

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["TwistedCelery"]

T = TypeVar("T")


class TwistedCelery:
    """Calls the tasks of a Celery app from Twisted, each call a :class:`DeferredTask`.

    Making one does no I/O. It connects when it is first used, and disconnects when the reactor
    shuts down, at the latest. Use it in the reactor's thread only.

    .. code-block:: python

        tx_app = TwistedCelery(app)
        result = yield tx_app.send_task("proj.add", args=(1, 2))

    :param app: the Celery app; or a :class:`bridgetask.Client`, to share it with asyncio code.
    :param reactor: the reactor; None takes the installed one at the first use.
    :param options: options of :class:`bridgetask.Client`, such as ``send_timeout`` in seconds.
    """

    def __init__(self, app: Celery | Client, *, reactor: Any = None, **options: Any) -> None:
        #: The client behind this one. Use it from coroutines that :meth:`run` runs.
        self.client: Client = app if isinstance(app, Client) else Client(app, **options)
        self._runner = Runner(self.client, reactor)
        #: Commands to workers.
        self.control: TwistedControl = TwistedControl(self.client.control, self._runner)

    def send_task(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> DeferredTask:
        """Call a task by its name; see :meth:`bridgetask.Client.send_task`.

        :raises InvalidOption: an argument or an option can't be used; nothing is sent.
        :raises Overloaded: too many messages wait for a confirm already; nothing is sent.
        :raises ClientClosed: the client was closed.
        """
        event_loop = self._runner.event_loop()
        call = client_internals.send_task(self.client, event_loop.loop, name, args, kwargs, options)
        return _started(call, event_loop)

    def delay(self, task: Any, /, *args: Any, **kwargs: Any) -> DeferredTask:
        """Call a task of the app: ``delay(add, 1, 2)``. Raises what :meth:`apply_async` does."""
        return self.apply_async(task, args, kwargs)

    def apply_async(
        self,
        task: Any,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> DeferredTask:
        """Call a task of the app or a signature; see :meth:`bridgetask.Client.apply_async`.

        Raises what :meth:`send_task` does.

        :raises TypeError: the task does not take these arguments.
        """
        event_loop = self._runner.event_loop()
        call = client_internals.apply_async(
            self.client, event_loop.loop, unwrapped(task), args, kwargs, options
        )
        return _started(call, event_loop)

    def map(
        self,
        task: Any,
        iterable: Iterable[Any],
        callback: Callable[[Any], object] | None = None,
        **options: Any,
    ) -> Deferred[list[Any]]:
        """Call a task with each item; see :meth:`bridgetask.Client.map`, whose options this takes.

        On other reactors than asyncio's, ``iterable`` is evaluated in the loop's thread. Cancelling
        the Deferred calls no more; what is in flight runs on, unless ``on_cancel`` says otherwise.

        :param task: a task of the app, or a signature.
        :param iterable: what to call the task with.
        :param callback: called with each value as it comes, in the reactor's thread.
        :returns: a Deferred of the list of the values, which is empty with a ``callback``.
        """
        values: list[Any] = []
        mapped = self.client.map(unwrapped(task), iterable, **options)
        ended = for_each(lambda: mapped, callback or values.append, self._runner.event_loop())
        return ended.addCallback(lambda _: values)

    def result(self, task_id: str) -> DeferredTask:
        """Return the result of a task by its id; see :meth:`bridgetask.Client.result`."""
        event_loop = self._runner.event_loop()
        handle = client_internals.result(self.client, event_loop.loop, task_id)
        return DeferredTask(handle, event_loop, quiet=True)

    def group_result(self, group_id: str) -> Deferred[list[DeferredTask]]:
        """Return the members of a saved group; see :meth:`bridgetask.Client.group_result`."""
        event_loop = self._runner.event_loop()
        return self.run(self.client.group_result(group_id)).addCallback(
            lambda group: [DeferredTask(each, event_loop, quiet=True) for each in group]
        )

    def events(
        self, callback: Callable[[dict[str, Any]], object], *args: Any, **kwargs: Any
    ) -> DeferredEvents:
        """Call ``callback`` with every event; see :meth:`bridgetask.Client.events`.

        Cancelling what this returns ends it.

        :param callback: called with each event, in the reactor's thread.
        :raises InvalidOption: an argument can't be used.
        """
        event_loop = self._runner.event_loop()
        client_internals.bind(self.client, event_loop.loop)
        return DeferredEvents(self.client.events(*args, **kwargs), callback, event_loop)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> Deferred[T]:
        """Run a coroutine on the event loop that :attr:`client` belongs to.

        Cancelling the Deferred cancels the coroutine, and fires at once with Twisted's
        ``CancelledError``.

        :raises ClientClosed: the client was closed.
        """
        return self._runner.run(coroutine)

    def connect(self) -> Deferred[None]:
        """Connect now, so that errors show early; see :meth:`bridgetask.Client.connect`."""
        return self.run(self.client.connect())

    def disconnect(self) -> Deferred[None]:
        """Send what is queued, and disconnect for good, within ``close_timeout`` seconds.

        Nobody needs to wait for the Deferred: the reactor does, when it shuts down. Cancelling it
        ends the waiting, and nothing else.
        """
        return self._runner.close()

    close = disconnect


def _started(call: Submission, event_loop: EventLoop) -> DeferredTask:
    event_loop.call(call.start)
    return DeferredTask(call.handle, event_loop)
