"""The decorator for tasks, named as in txCelery."""

from __future__ import annotations

from typing import Any, ClassVar

from ..wire.recorder import is_task
from .client import TwistedCelery
from .result import DeferredTask
from .signatures import WrappedTask

__all__ = ["CeleryClient", "DeferrableTask"]


class CeleryClient(WrappedTask):
    """A decorator above ``@app.task``: the task's calls then return :class:`DeferredTask`.

    .. code-block:: python

        @CeleryClient
        @app.task
        def my_task(x): ...

        d = my_task.delay(1)

    All tasks of an app share one :class:`TwistedCelery`, which disconnects with the reactor.

    :param task: a Celery task.
    :param client: the client to use instead of the shared one.
    :raises TypeError: it is not a Celery task.
    """

    _shared: ClassVar[dict[Any, TwistedCelery]] = {}

    def __init__(self, task: Any, client: TwistedCelery | None = None) -> None:
        if not is_task(task):
            raise TypeError(f"CeleryClient wraps a Celery task, not {task!r}")
        super().__init__(task)
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


#: The same under the name that txCelery also has for it.
DeferrableTask = CeleryClient
