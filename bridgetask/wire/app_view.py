"""A view of a Celery app: the app with its I/O replaced. The app itself is not altered.

Celery's own ``send_task``, ``Task.apply_async`` and canvas run on the view. Its attributes are the
app's, except for those through which Celery would do I/O: the producer, the result backend, and the
address that results are sent to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from celery.local import Proxy

from .amqp_view import AmqpView
from .callback_address import CallbackAddress
from .canvas import SentGroup, SentResult
from .configuration import ConfigurationView
from .message import StoreWrite
from .producer import RecordingProducer
from .tape import Tape
from .templates import Templates

if TYPE_CHECKING:
    from celery import Celery, Task

__all__ = ["AppView", "MakeBackend", "app_itself", "app_view"]

#: Makes what Celery's code uses in place of the app's backend, which records what it would write.
#: It is given the view of the app, and what takes the writes.
MakeBackend = Callable[[Any, Callable[[StoreWrite], None]], Any]


def app_itself(app: Celery) -> Celery:
    """Return the app that this is, or now stands for, such as ``celery.current_app``."""
    return app._get_current_object() if issubclass(type(app), Proxy) else app


_NONE: Any = object()
#: Methods of the app that run with the view as ``self``.
_RUN_ON_VIEW = frozenset({"send_task"})


@dataclass(frozen=True, slots=True)
class AppView:
    """A view of an app, and its own parts."""

    #: The view itself, which Celery's code uses as the app.
    app: Celery
    #: The app's tasks, each bound to the view.
    tasks: TaskViews
    #: Make calls that are like earlier ones.
    templates: Templates
    #: In place of the app's result backend.
    backend: Any


def app_view(
    app: Celery,
    reply_to: str,
    *,
    tape: Tape,
    producer: RecordingProducer,
    callback_address: CallbackAddress,
    make_backend: MakeBackend,
    clock: Callable[[], float],
) -> AppView:
    """Return a view of an app.

    :param reply_to: the address that workers shall send results to.
    :param tape: gets the messages that ``producer`` publishes, and the writes of the backend.
    :param make_backend: makes the result backend of the view.
    :param clock: tells the time, in seconds.
    """
    app_class = type(app)
    seams: dict[str, Any] = {}

    class View(app_class):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            """Leave ``Celery.__init__`` out: what it sets is taken from the app."""

        def __getattribute__(self, name: str) -> Any:
            seam = seams.get(name, _NONE)
            if seam is not _NONE:
                return seam
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
            if task_type is not None and hasattr(task_type, "_viewed"):
                task_type = task_type._viewed()  # routers may compare it with a task of theirs
            by_celery = super().send_task
            if more:
                return by_celery(name, args, kwargs, *more, task_type=task_type, **options)
            return templates.call(by_celery, name, args, kwargs, task_type, options)

    def producer_or_acquire(_: Any = None) -> nullcontext[Any]:
        return nullcontext(producer)

    view = View()
    backend = make_backend(view, tape.add_write)
    tasks = TaskViews(app, view, backend)
    seams.update(
        conf=ConfigurationView(app),
        backend=backend,
        producer_or_acquire=producer_or_acquire,
        # Celery asks it which kind of broker it talks to.
        producer_pool=SimpleNamespace(connections=SimpleNamespace(connection=producer.connection)),
        thread_oid=reply_to,
        oid=reply_to,
        AsyncResult=SentResult,
        GroupResult=SentGroup,
        tasks=tasks,
    )
    amqp = seams["amqp"] = AmqpView(app.amqp, view, tape, callback_address)
    templates = Templates(app, producer, tape, amqp.kept_settings, clock)
    return AppView(view, tasks, templates, backend)


class TaskViews(Mapping[str, Any]):
    """The app's task registry, each task bound to the view."""

    def __init__(self, app: Celery, view: Celery, backend: Any) -> None:
        self._app = app
        self._view = view
        self._backend = backend
        self._views: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()

    def of(self, task: Task[Any, Any]) -> Task[Any, Any]:
        """Return ``task`` bound to the view: the same class, state and options, another app."""
        if task not in self._views:
            task_class: Any = type(task)
            seams = {
                "app": self._view,
                "_app": self._view,
                "backend": self._backend,
                "_viewed": ref(task),
            }
            bound: Any = object.__new__(type(task_class.__name__, (task_class,), seams))
            bound.__dict__ = task.__dict__  # shared, so that later changes to the task count
            self._views[task] = bound
        found: Task[Any, Any] = self._views[task]
        return found

    def __getitem__(self, name: str) -> Task[Any, Any]:
        return self.of(self._app.tasks[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._app.tasks)

    def __len__(self) -> int:
        return len(self._app.tasks)
