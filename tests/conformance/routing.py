"""Puts translations in the place of what a client calls of Celery's."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any

from celery.result import EagerResult

from .bridge import Bridge

__all__ = ["Router"]


class Router:
    """Replaces methods and properties by translations, for whoever calls them as a client.

    A translation that returns ``NotImplemented`` leaves the call to Celery.
    """

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        #: How often each was translated.
        self.calls: Counter[str] = Counter()

    def method(
        self, owner: type, name: str, translation: Callable[..., Any], *, counted: bool = True
    ) -> None:
        original = vars(owner).get(name)
        if original is None:  # an older Celery does not have it
            return
        setattr(owner, name, self._routed(owner, name, original, translation, counted))

    def class_method(self, owner: type, name: str, translation: Callable[..., Any]) -> None:
        original = vars(owner)[name].__func__
        setattr(owner, name, classmethod(self._routed(owner, name, original, translation)))

    def attribute(self, owner: type, name: str, translation: Callable[..., Any]) -> None:
        original = vars(owner)[name].fget
        setattr(owner, name, property(self._routed(owner, name, original, translation)))

    def _routed(
        self,
        owner: type,
        name: str,
        original: Callable[..., Any],
        translation: Callable[..., Any],
        counted: bool = True,
    ) -> Callable[..., Any]:
        bridge, calls, called = self._bridge, self.calls, f"{owner.__name__}.{name}"

        @functools.wraps(original)
        def routed(this: Any, *args: Any, **kwargs: Any) -> Any:
            # What bridgetask itself runs of Celery's code, it runs on the loop.
            if bridge.on_client_side and not bridge.on_loop and not isinstance(this, EagerResult):
                result = translation(this, *args, **kwargs)
                if result is not NotImplemented:
                    calls[called] += counted
                    return result
            return original(this, *args, **kwargs)

        return routed
