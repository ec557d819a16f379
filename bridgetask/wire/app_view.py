"""A Celery app with its I/O replaced, beside the user's app, which stays as it is.

Celery's own ``send_task``, ``Task.apply_async`` and canvas run on the view. It answers for
everything from the user's app, except for the seams through which Celery would do I/O: the
producer, the result backend, and the address that results are sent to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import copy
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from celery import signals
from celery.local import Proxy

from .canvas import SentGroup, SentResult
from .message import StoreWrite
from .shortcuts import ConfigurationView, plain_repr, plain_repr_serves
from .templates import Templates

if TYPE_CHECKING:
    from celery import Celery, Task

    from .recorder import Recorder

__all__ = ["MakeBackend", "app_itself", "app_view", "task_view"]

#: Makes what Celery's code uses in place of the app's backend, which records what it would write.
MakeBackend = Callable[[Any, Callable[[StoreWrite], None]], Any]


def app_itself(app: Celery) -> Celery:
    """Return the app that this is, or now stands for, such as ``celery.current_app``."""
    return app._get_current_object() if issubclass(type(app), Proxy) else app


#: Methods of the app that run with the view as ``self``.
_RUN_ON_VIEW = frozenset({"send_task"})


def app_view(app: Celery, recorder: Recorder, make_backend: MakeBackend) -> Celery:
    """Return a view of ``app`` whose messages, and what its backend writes, end in ``recorder``.

    :param make_backend: makes the backend of the view, of the view and of what takes its writes.
    """
    app_class = type(app)
    seams: dict[str, Any] = {}

    class View(app_class):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            """Leave ``Celery.__init__`` out: all that it sets is answered for by the app."""

        def __getattribute__(self, name: str) -> Any:
            try:
                return seams[name]
            except KeyError:
                pass
            if name in _RUN_ON_VIEW:
                return object.__getattribute__(self, name)
            return getattr(app, name)

        def send_task(
            self,
            name: str,
            args: Any = None,
            kwargs: Any = None,
            *more: Any,
            task_type: Any = None,
            **options: Any,
        ) -> Any:
            if hasattr(task_type, "_viewed"):
                task_type = task_type._viewed()  # routers may compare it with a task of theirs
            send_task = super().send_task
            if more:
                return send_task(name, args, kwargs, *more, task_type=task_type, **options)
            return templates.send_task(send_task, name, args, kwargs, task_type, options)

    view = View()
    backend = make_backend(view, recorder.add_write)
    conf: Any = ConfigurationView(app)
    templates = Templates(app, view, conf, recorder)
    seams.update(
        conf=conf,
        backend=backend,
        producer_or_acquire=recorder.producer_or_acquire,
        producer_pool=recorder.producer_pool,
        thread_oid=recorder.reply_to,
        oid=recorder.reply_to,
        AsyncResult=SentResult,
        GroupResult=SentGroup,
        amqp=_AmqpView(app, view, recorder),
        tasks=_TasksView(app, view),
        _task_views=WeakKeyDictionary(),
        _templates=templates,
    )
    return view


def task_view(task: Task[Any, Any], view: Celery) -> Task[Any, Any]:
    """Return ``task`` bound to ``view``: the same class, state and options, another app."""
    views = view._task_views
    if task not in views:
        task_class: Any = type(task)
        seams = {"app": view, "_app": view, "backend": view.backend, "_viewed": ref(task)}
        bound: Any = object.__new__(type(task_class.__name__, (task_class,), seams))
        bound.__dict__ = task.__dict__  # shared, so that later changes to the task count
        views[task] = bound
    found: Task[Any, Any] = views[task]
    return found


class _TasksView(Mapping[str, Any]):
    """The app's task registry, each task bound to the view."""

    def __init__(self, app: Celery, view: Celery) -> None:
        self._app = app
        self._view = view

    def __getitem__(self, name: str) -> Task[Any, Any]:
        return task_view(self._app.tasks[name], self._view)

    def __iter__(self) -> Iterator[str]:
        return iter(self._app.tasks)

    def __len__(self) -> int:
        return len(self._app.tasks)


class _AmqpView:
    """``app.amqp`` whose task sender leaves to us what must wait until a message is published."""

    def __init__(self, app: Celery, view: Celery, recorder: Recorder) -> None:
        self._amqp = app.amqp
        self._view = view
        self._recorder = recorder
        self._router: Any = None
        self._event_dispatcher = _TaskSentEvents(self._amqp, recorder)
        self._send_task_message = self._create_task_sender()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._amqp, name)

    @property
    def router(self) -> Any:
        """The app's router, which reads the configuration from the view."""
        router = self._amqp.router
        if self._router is None or self._router[0] is not router:
            ours = copy(router)
            ours.app = self._view
            self._router = router, ours
        return self._router[1]

    def create_task_message(
        self, task_id: str, name: str, args: Any, kwargs: Any, *more: Any, **options: Any
    ) -> Any:
        create: Any = self._amqp.create_task_message
        if plain_repr_serves(self._amqp, self._view.conf):
            for option, value in (("argsrepr", args or ()), ("kwargsrepr", kwargs or {})):
                if options.get(option) is None:
                    options[option] = plain_repr(value)
        message = create(task_id, name, args, kwargs, *more, **options)
        self._recorder.address_callbacks(message.body)
        return message

    def send_task_message(self, producer: Any, name: str, message: Any, **options: Any) -> None:
        task_id = message.properties["correlation_id"]  # options may change it
        send = partial(self._send_task_message, producer, name, message, **options)
        self._recorder.record_task(task_id, send)

    def _create_task_sender(self) -> Any:
        """Run ``AMQP._create_task_sender`` with its ``signals`` replaced.

        Celery sends ``after_task_publish`` as soon as the publish returns. A recorded publish
        returns before anything was sent, so the signal is kept with the message.
        """
        original = type(self._amqp)._create_task_sender
        replaced = original.__globals__ | {"signals": _DeferredSignals(self._recorder)}
        rebound = FunctionType(
            original.__code__, replaced, original.__name__, None, original.__closure__
        )
        return rebound(self)


class _DeferredSignals:
    """``celery.signals``, with those that announce a published message kept until it is."""

    def __init__(self, recorder: Recorder) -> None:
        self.before_task_publish = _Signal(signals.before_task_publish)
        self.after_task_publish = _DeferredSignal(signals.after_task_publish, recorder)
        self.task_sent = _DeferredSignal(signals.task_sent, recorder)


class _Signal:
    """A signal of Celery's. Its ``receivers`` are true while there are any.

    Up to Celery 5.5 the sender asks for the list once, and Celery replaces it now and then.
    """

    def __init__(self, signal: Any) -> None:
        self._signal = signal

    @property
    def receivers(self) -> _Signal:
        return self

    def __bool__(self) -> bool:
        return bool(self._signal.receivers)

    def send(self, **kwargs: Any) -> None:
        self._signal.send(**kwargs)


class _DeferredSignal(_Signal):
    def __init__(self, signal: Any, recorder: Recorder) -> None:
        super().__init__(signal)
        self._recorder = recorder

    def send(self, **kwargs: Any) -> None:
        if self:
            self._recorder.on_published(partial(self._signal.send, **kwargs))


class _TaskSentEvents:
    """Celery's dispatcher of ``task-sent`` events. Nobody need be listening to them."""

    def __init__(self, amqp: Any, recorder: Recorder) -> None:
        self._amqp = amqp
        self._recorder = recorder

    def publish(self, *args: Any, **kwargs: Any) -> None:
        with self._recorder.not_mandatory():
            self._amqp._event_dispatcher.publish(*args, **kwargs)
