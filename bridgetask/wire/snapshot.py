"""Compares values that can be changed in place with what they were."""

from __future__ import annotations

import datetime
import numbers
import re
from enum import Enum
from typing import Any
from uuid import UUID

from kombu.abstract import Object

__all__ = ["Snapshot"]

#: Types of values that can't be changed in place.
_CONSTANTS = (
    str,
    bytes,
    type(None),
    numbers.Number,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    datetime.tzinfo,
    Enum,
    UUID,
    re.Pattern,
)


class Snapshot:
    """A copy of some values, and of all values in them.

    It keeps each dict, list and set together with a copy, and the attributes of kombu's queues and
    exchanges likewise. So one comparison, by ``==``, shows whether any of them has changed.

    :param values: the values, of any depth.
    :raises TypeError: there is an object among them that may be changed, of an unknown type.
    """

    __slots__ = ("_containers", "_copies", "_objects")

    def __init__(self, *values: Any) -> None:
        self._containers: list[Any] = []
        self._copies: list[Any] = []
        #: kombu's objects: the container, the key, and the object. They are compared by identity,
        #: since kombu's ``==`` leaves out some attributes.
        self._objects: list[tuple[Any, Any, Any]] = []
        self._take(values, set())

    def is_current(self) -> bool:
        """Tell whether the values are what they were."""
        try:
            if self._containers != self._copies:
                return False
            for container, key, value in self._objects:
                if container[key] is not value:
                    return False
        except Exception:  # there is a value now that can't be compared
            return False
        return True

    def _take(self, value: Any, taken: set[int]) -> None:
        """Copy a value, and those in it, if they can be changed in place."""
        if isinstance(value, _CONSTANTS) or id(value) in taken:
            return
        taken.add(id(value))
        if isinstance(value, Object):
            self._take(vars(value), taken)
        elif isinstance(value, dict):
            self._take_container(value, dict(value), value.items(), taken)
        elif isinstance(value, list):
            self._take_container(value, list(value), enumerate(value), taken)
        elif isinstance(value, set):
            self._take_container(value, set(value), ((None, each) for each in value), taken)
        elif isinstance(value, (tuple, frozenset)):
            for each in value:
                self._take(each, taken)
        elif not callable(value):
            raise TypeError(f"{type(value).__name__} may be changed unseen")

    def _take_container(self, value: Any, copy: Any, items: Any, taken: set[int]) -> None:
        self._containers.append(value)
        self._copies.append(copy)
        for key, each in items:
            if key is not None and isinstance(each, Object):
                self._objects.append((value, key, each))
            self._take(each, taken)
