"""The client for Twisted programs. It converts, and only converts."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred, succeed

from ..asyncio_impl.client import Client
from ..asyncio_impl.lookup import handle_by_id
from ..asyncio_impl.submission import submission_of
from ..errors import ClientClosed
from ..wire.canvas import group_of
from ..wire.recorder import RecordedCall, is_task
from ..wire.signature import RedirectedSignature
from .control import DeferredEvents, TwistedControl
from .deferred import EventLoop, event_loop_for, for_each
from .result import DeferredTask

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["CeleryClient", "DeferrableTask", "DeferredSignature", "TwistedCelery"]

T = TypeVar("T")


class TwistedCelery:
    """Calls the tasks of a Celery app from Twisted, each call a :class:`DeferredTask`.

    Making one does no I/O. It connects when it is first used, and disconnects when the reactor
    shuts down, at the latest.

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
        #: Commands to workers.
        self.control: TwistedControl = TwistedControl(self)
        self._reactor = reactor
        self._event_loop: EventLoop | None = None
        self._trigger: Any = None
        self._disconnecting: Deferred[None] | None = None

    def send_task(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> DeferredTask:
        """Call a task by its name; see :meth:`bridgetask.Client.send_task`.

        :raises InvalidOption: an argument or an option can't be used; nothing is sent.
        """
        return self._call(self.client._codec.recorder.send_task, (name, args, kwargs), options)

    def delay(self, task: Any, /, *args: Any, **kwargs: Any) -> DeferredTask:
        """Call a task of the app: ``delay(add, 1, 2)``."""
        return self.apply_async(task, args, kwargs)

    def apply_async(
        self,
        task: Any,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> DeferredTask:
        """Call a task of the app or a signature; see :meth:`bridgetask.Client.apply_async`."""
        task = _unwrapped(task)
        return self._call(self.client._codec.recorder.apply_async, (task, args, kwargs), options)

    def map(
        self,
        task: Any,
        iterable: Iterable[Any],
        callback: Callable[[Any], object] | None = None,
        **options: Any,
    ) -> Deferred[list[Any]]:
        """Call a task with each item; see :meth:`bridgetask.Client.map`, whose options this takes.

        On other reactors than asyncio's, ``iterable`` is evaluated in the loop's thread.

        :param task: a task of the app, or a signature.
        :param iterable: what to call the task with.
        :param callback: called with each value as it comes, in the reactor's thread.
        :returns: a Deferred with the list of the values; empty with a ``callback``.
        """
        values: list[Any] = []
        mapped = self.client.map(_unwrapped(task), iterable, **options)
        ended = for_each(lambda: mapped, callback or values.append, self._acquired())
        return ended.addCallback(lambda _: values)

    def result(self, task_id: str) -> DeferredTask:
        """Return the result of a task by its id; see :meth:`bridgetask.Client.result`."""
        event_loop = self._acquired()
        session = self.client._session_on(event_loop.loop)
        handle = handle_by_id(self.client, session, task_id)
        return DeferredTask(handle, event_loop, quiet=True)

    def group_result(self, group_id: str) -> Deferred[list[DeferredTask]]:
        """Return the members of a saved group; see :meth:`bridgetask.Client.group_result`."""
        event_loop = self._acquired()
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
        event_loop = self._acquired()
        self.client._session_on(event_loop.loop)
        return DeferredEvents(self.client.events(*args, **kwargs), callback, event_loop)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> Deferred[T]:
        """Run a coroutine on the event loop that :attr:`client` belongs to.

        Cancelling the Deferred cancels the coroutine.
        """
        try:
            event_loop = self._acquired()
        except BaseException:
            coroutine.close()
            raise
        return event_loop.deferred(coroutine)

    def connect(self) -> Deferred[None]:
        """Connect now, so that errors show early; see :meth:`bridgetask.Client.connect`."""
        return self.run(self.client.connect())

    def disconnect(self) -> Deferred[None]:
        """Send what is queued, and disconnect for good, within ``close_timeout`` seconds.

        Nobody needs to wait for the Deferred: the reactor does, when it shuts down.
        """
        if self._disconnecting is not None:
            return _follow(self._disconnecting)
        event_loop, self._event_loop = self._event_loop, None
        if event_loop is None or not event_loop.usable:
            self.client._closed = True
            return succeed(None)
        self._disconnecting = event_loop.deferred(self.client.close())

        def released(result: Any) -> Any:
            event_loop.release()
            trigger, self._trigger = self._trigger, None
            if trigger is not None and not _is_shutting_down(self._reactor):
                self._reactor.removeSystemEventTrigger(trigger)
            return result

        self._disconnecting.addBoth(released)
        return _follow(self._disconnecting)

    close = disconnect

    def _call(
        self, record: Callable[..., RecordedCall], args: tuple[Any, ...], options: dict[str, Any]
    ) -> DeferredTask:
        client = self.client
        event_loop = self._acquired()
        session = client._session_on(event_loop.loop)
        on_cancel = client._pop_on_cancel(options)
        call = record(*args, options)
        submission = submission_of(client, session, call, on_cancel)
        event_loop.call(submission.start)
        return DeferredTask(submission.handle, event_loop)

    def _acquired(self) -> EventLoop:
        """Return the event loop to run on, chosen when it is first needed."""
        if self._event_loop is None or not self._event_loop.usable:
            if self._disconnecting is not None:  # the client itself may not be closed yet
                raise ClientClosed("the client is closed")
            if self._reactor is None:
                from twisted.internet import reactor

                self._reactor = reactor
            self.client._check_open()
            self._event_loop = event_loop_for(self._reactor)
            if self._trigger is None:
                self._trigger = self._reactor.addSystemEventTrigger(
                    "before", "shutdown", self.disconnect
                )
        return self._event_loop


def _follow(deferred: Deferred[None]) -> Deferred[None]:
    """Return a Deferred of the caller's own that fires when ``deferred`` does."""
    follower: Deferred[None] = Deferred()

    def fire(result: Any) -> Any:
        if not follower.called:
            follower.callback(None)
        return result

    deferred.addBoth(fire)
    return follower


def _is_shutting_down(reactor: Any) -> bool:
    return bool(getattr(reactor, "_stopped", False))


class CeleryClient:
    """A decorator above ``@app.task``: the task's calls then return :class:`DeferredTask`.

    .. code-block:: python

        @CeleryClient
        @app.task
        def my_task(x): ...

        d = my_task.delay(1)

    All tasks of an app share one :class:`TwistedCelery`, which disconnects with the reactor.

    :param task: a Celery task.
    :param client: the client to use, rather than the shared one.
    :raises TypeError: it is not a Celery task.
    """

    _shared: dict[Any, TwistedCelery] = {}  # noqa: RUF012

    def __init__(self, task: Any, client: TwistedCelery | None = None) -> None:
        if not is_task(task):
            raise TypeError(f"CeleryClient wraps a Celery task, not {task!r}")
        self._task = task
        self._client = client

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run the task here and now, as calling a Celery task does."""
        return self._task(*args, **kwargs)

    def delay(self, /, *args: Any, **kwargs: Any) -> DeferredTask:
        """Call the task, as ``Task.delay`` does."""
        return self._using().apply_async(self._task, args, kwargs)

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> DeferredTask:
        """Call the task, as ``Task.apply_async`` does."""
        return self._using().apply_async(self._task, args, kwargs, **options)

    def signature(self, /, *args: Any, **kwargs: Any) -> DeferredSignature:
        """Return a signature of the task, as ``Task.signature`` does."""
        return self._deferred(self._task.signature(*args, **kwargs))

    subtask = signature

    def s(self, /, *args: Any, **kwargs: Any) -> DeferredSignature:
        """Return a signature of the task, as ``Task.s`` does."""
        return self._deferred(self._task.s(*args, **kwargs))

    def si(self, /, *args: Any, **kwargs: Any) -> DeferredSignature:
        """Return an immutable signature of the task, as ``Task.si`` does."""
        return self._deferred(self._task.si(*args, **kwargs))

    def map(self, items: Any) -> DeferredSignature:
        """Return a signature that runs the task with each item, as ``Task.map`` does."""
        return self._deferred(self._task.map(items))

    def starmap(self, items: Any) -> DeferredSignature:
        """Return a signature that runs the task with each tuple, as ``Task.starmap`` does."""
        return self._deferred(self._task.starmap(items))

    def chunks(self, items: Any, size: int) -> DeferredSignature:
        """Return a signature of a group that runs the task in parts, as ``Task.chunks`` does."""
        return self._deferred(self._task.chunks(items, size))

    def group(self, *members: Any) -> DeferredSignature:
        """Return the group of ``members``, each a signature: ``my_task.group(a.s(1), b.s(2))``."""
        return self._deferred(group_of(map(_unwrapped, members)))

    def chain(self, *steps: Any) -> DeferredSignature:
        """Return the chain of ``steps``, each a signature: ``my_task.chain(a.s(1), b.s(2))``."""
        first, *others = (_unwrapped(step) for step in steps)
        for step in others:
            first = first | step
        return self._deferred(first)

    def _deferred(self, signature: Any) -> DeferredSignature:
        return DeferredSignature.of(signature, self._call)

    def _call(self, signature: Any, args: Any, kwargs: Any, **options: Any) -> DeferredTask:
        return self._using().apply_async(signature, args, kwargs, **options)

    def _using(self) -> TwistedCelery:
        if self._client is not None:
            return self._client
        app = self._task.app
        shared = self._shared.get(app)
        if shared is None or shared.client.closed:
            shared = self._shared[app] = TwistedCelery(app)
        return shared

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def __repr__(self) -> str:
        return f"<CeleryClient of {self._task!r}>"


#: The name that txCelery has for it, too.
DeferrableTask = CeleryClient


class DeferredSignature(RedirectedSignature):
    """A signature whose ``delay`` and ``apply_async`` return :class:`DeferredTask`.

    In all else it is Celery's signature, and can be used wherever that can. What is made of it,
    such as ``a.clone()`` and ``a | b``, returns DeferredTasks, too. But ``celery.group``, ``chain``
    and ``chord`` make Celery's own, whose ``delay`` blocks, and so does ``|`` after one of them:
    call those by :meth:`TwistedCelery.apply_async`.
    """

    def delay(self, /, *args: Any, **kwargs: Any) -> DeferredTask:  # type: ignore[override]
        """Call it, as ``Signature.delay`` does."""
        return self.apply_async(args, kwargs)

    def apply_async(  # type: ignore[override]
        self, args: Any = None, kwargs: Any = None, **options: Any
    ) -> DeferredTask:
        """Call it, as ``Signature.apply_async`` does."""
        return super().apply_async(args, kwargs, **options)  # type: ignore[no-any-return]

    def link(self, callback: Any) -> Any:
        """Call ``callback`` with the result, as ``Signature.link`` does."""
        return super().link(_unwrapped(callback))

    def link_error(self, errback: Any) -> Any:
        """Call ``errback`` where the task fails, as ``Signature.link_error`` does."""
        return super().link_error(_unwrapped(errback))


def _unwrapped(candidate: Any) -> Any:
    return candidate._task if isinstance(candidate, CeleryClient) else candidate
