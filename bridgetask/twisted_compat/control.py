"""Commands to workers, as Deferreds."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

from twisted.internet.defer import Deferred

from ..asyncio_impl.control import Control
from ..asyncio_impl.inspect import Inspect
from .runner import Runner

__all__ = ["TwistedControl", "TwistedInspect"]


class _Deferring:
    """Has the coroutine methods of an asyncio object, each of which returns a Deferred.

    A ``callback`` among the arguments is called in the reactor's thread.
    """

    def __init__(self, target: Control | Inspect, runner: Runner) -> None:
        self._target = target
        self._runner = runner

    def __getattr__(self, name: str) -> Callable[..., Deferred[Any]]:
        if name.startswith("_"):
            raise AttributeError(name)
        method = getattr(self._target, name)

        @wraps(method)
        def deferred(*args: Any, **kwargs: Any) -> Deferred[Any]:
            args, kwargs = self._arguments(method, args, kwargs)
            return self._runner.run(method(*args, **kwargs))

        return deferred

    def _arguments(
        self, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of a call with its ``callback``, if any, run by the reactor."""
        in_reactor = self._runner.event_loop().in_reactor
        bound = inspect.signature(method).bind(*args, **kwargs)
        for arguments in (bound.arguments, bound.arguments.get("kwargs", {})):
            if callable(arguments.get("callback")):
                arguments["callback"] = in_reactor(arguments["callback"])
        return bound.args, bound.kwargs


class TwistedInspect(_Deferring):
    """Questions to workers, as Deferreds: every method of :class:`bridgetask.Inspect`.

    Made by :meth:`TwistedControl.inspect`, never directly.
    """


class TwistedControl(_Deferring):
    """Commands to workers, as Deferreds: every method of :class:`bridgetask.Control`.

    The ``control`` of a :class:`TwistedCelery`, never made directly.
    """

    def __init__(self, target: Control, runner: Runner) -> None:
        super().__init__(target, runner)
        self._inspect = target.inspect

    def inspect(self, *args: Any, **kwargs: Any) -> TwistedInspect:
        """Return what asks workers about themselves; see :meth:`bridgetask.Control.inspect`."""
        args, kwargs = self._arguments(self._inspect, args, kwargs)
        return TwistedInspect(self._inspect(*args, **kwargs), self._runner)
