"""Values that can be changed in place, compared with what they were."""

from __future__ import annotations

import datetime
import numbers
import re
from enum import Enum
from typing import Any
from uuid import UUID

from kombu.abstract import Object

__all__ = ["Snapshot"]

#: What nobody changes in place.
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
    """What some values were, with all that is in them.

    It holds each dict, list and set that is in them beside a copy of it, and likewise the
    attributes of kombu's queues and exchanges. Thus a look at all of them takes one comparison,
    by ``==``.

    :param values: what to look at.
    :raises TypeError: there is something in them that might be changed in a way not known here.
    """

    __slots__ = ("_containers", "_copies", "_objects")

    def __init__(self, *values: Any) -> None:
        self._containers: list[Any] = []
        self._copies: list[Any] = []
        #: Objects, and where they are. Equal ones are not the same: kombu's ``==`` leaves out some
        #: of what it declares.
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
        except Exception:  # what there is now can't be compared, which what there was could
            return False
        return True

    def _take(self, value: Any, taken: set[int]) -> None:
        """Copy what can be changed in a value, and in what it consists of."""
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
