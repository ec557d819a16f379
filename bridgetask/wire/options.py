"""Checks of the options of a call: what Celery takes is taken, and errors name the option."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any

from celery.exceptions import QueueNotFound
from kombu import Queue
from kombu.compression import get_encoder
from kombu.exceptions import EncodeError, SerializerNotInstalled
from kombu.serialization import registry

from ..errors import InvalidOption
from ..retry import RetryPolicy

__all__ = ["check_call", "raise_naming_the_option"]

#: Options that give Celery a blocking connection, or ask for a result class of Celery's.
_NOT_HERE = {
    "producer": "bridgetask publishes through its own connection",
    "publisher": "bridgetask publishes through its own connection",
    "connection": "bridgetask publishes through its own connection",
    "result_cls": "bridgetask returns its own AsyncResult",
}
_SHORT_STRINGS = ("task_id", "reply_to", "routing_key", "group_id", "root_id", "parent_id")
_DELIVERY_MODES = (1, 2, "transient", "persistent")


def check_call(args: Any, kwargs: Any, options: Mapping[str, Any]) -> None:
    """Refuse arguments and options that can't be sent, and those that Celery refuses unclearly.

    :raises InvalidOption: naming the argument or the option.
    """
    if args and not isinstance(args, (list, tuple)):
        raise InvalidOption("args", f"must be a list or tuple, not {type(args).__name__}")
    if kwargs and not isinstance(kwargs, Mapping):
        raise InvalidOption("kwargs", f"must be a mapping, not {type(kwargs).__name__}")
    if options:
        for name, value in options.items():
            if value is not None and (check := _CHECKS.get(name)) is not None:
                check(name, value)


def _not_here(name: str, value: Any) -> None:
    raise InvalidOption(name, f"can't be used: {_NOT_HERE[name]}")


def _number(name: str, value: Any) -> None:
    if not isinstance(value, numbers.Real):
        raise InvalidOption(name, f"must be a number of seconds, not {value!r}")


def _date(name: str, value: Any) -> None:
    if not isinstance(value, str) and not hasattr(value, "isoformat"):
        raise InvalidOption(name, f"must be a datetime or an ISO 8601 string, not {value!r}")


def _number_or_date(name: str, value: Any) -> None:
    if not isinstance(value, numbers.Real):
        _date(name, value)


def _short_string(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise InvalidOption(name, f"must be a string, not {type(value).__name__}")
    if len(value.encode()) > 255:
        raise InvalidOption(name, "must be at most 255 bytes long")


def _priority(name: str, value: Any) -> None:
    if not isinstance(value, int) or not 0 <= value <= 255:
        raise InvalidOption(name, f"must be a whole number from 0 to 255, not {value!r}")


def _delivery_mode(name: str, value: Any) -> None:
    if value not in _DELIVERY_MODES:
        raise InvalidOption(name, f"must be one of {_DELIVERY_MODES}, not {value!r}")


def _serializer(name: str, value: Any) -> None:
    if value not in registry._encoders:
        known = ", ".join(sorted(map(str, registry._encoders)))
        raise InvalidOption(name, f"{value!r} is not registered; known are {known}")


def _compression(name: str, value: Any) -> None:
    if not value:
        return  # the configured one
    try:
        get_encoder(value)
    except KeyError:
        raise InvalidOption(name, f"{value!r} is not registered with kombu.compression") from None


def _queue(name: str, value: Any) -> None:
    if not isinstance(value, (str, Queue)):
        raise InvalidOption(name, f"must be a name or a kombu.Queue, not {value!r}")


def _mapping(name: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise InvalidOption(name, f"must be a mapping, not {value!r}")


def _retry_policy(name: str, value: Any) -> None:
    _mapping(name, value)
    RetryPolicy.from_mapping(value)


_CHECKS = {
    **dict.fromkeys(_NOT_HERE, _not_here),
    **dict.fromkeys(_SHORT_STRINGS, _short_string),
    **dict.fromkeys(("countdown", "timeout", "confirm_timeout"), _number),
    "eta": _date,
    "expires": _number_or_date,
    "priority": _priority,
    "delivery_mode": _delivery_mode,
    "serializer": _serializer,
    "compression": _compression,
    "queue": _queue,
    "headers": _mapping,
    "retry_policy": _retry_policy,
}


def raise_naming_the_option(error: Exception, options: Mapping[str, Any]) -> None:
    """Raise :class:`InvalidOption` for an error of Celery's or kombu's that bad options cause.

    Return if the error has another cause.
    """
    if isinstance(error, QueueNotFound):
        raise InvalidOption("queue", str(error.args[0])) from error
    if isinstance(error, SerializerNotInstalled):  # from a setting; the option was checked before
        raise InvalidOption("task_serializer", str(error)) from error
    if isinstance(error, EncodeError):
        raise InvalidOption("args, kwargs", f"can't be serialised: {error}") from error
    if isinstance(error, (AttributeError, OverflowError, ValueError)):
        named = next((name for name in ("countdown", "expires", "eta") if options.get(name)), None)
        if named is not None and not isinstance(error, InvalidOption):
            raise InvalidOption(named, str(error)) from error
