"""Celery's signatures, with calls that return Deferreds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from ..wire.canvas import group_of
from ..wire.signature import RedirectedSignature
from .result import DeferredTask

__all__ = ["DeferredSignature", "WrappedTask", "unwrapped"]


class WrappedTask(ABC):
    """A Celery task whose signatures are :class:`DeferredSignature`.

    :param task: a Celery task.
    """

    def __init__(self, task: Any) -> None:
        self._task = task

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
        return self._deferred(group_of(map(unwrapped, members)))

    def chain(self, *steps: Any) -> DeferredSignature:
        """Return the chain of ``steps``, each a signature: ``my_task.chain(a.s(1), b.s(2))``."""
        first, *others = map(unwrapped, steps)
        for step in others:
            first = first | step
        return self._deferred(first)

    def _deferred(self, signature: Any) -> DeferredSignature:
        return DeferredSignature.of(signature, self._call)

    @abstractmethod
    def _call(self, signature: Any, args: Any, kwargs: Any, **options: Any) -> DeferredTask:
        """Call one of the signatures."""


class DeferredSignature(RedirectedSignature):
    """A signature whose ``delay`` and ``apply_async`` return :class:`DeferredTask`.

    In all else it is Celery's signature, and can be used wherever that can. Signatures that are
    made of it, such as ``a.clone()`` and ``a | b``, return DeferredTasks, too. But
    ``celery.group``, ``chain`` and ``chord`` make Celery's own, whose ``delay`` blocks, and so does
    ``|`` after one of them: call those by :meth:`TwistedCelery.apply_async`.
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
        return super().link(unwrapped(callback))

    def link_error(self, errback: Any) -> Any:
        """Call ``errback`` where the task fails, as ``Signature.link_error`` does."""
        return super().link_error(unwrapped(errback))


def unwrapped(candidate: Any) -> Any:
    """Return the Celery task of a wrapped one, and anything else as it is."""
    return candidate._task if isinstance(candidate, WrappedTask) else candidate
