"""Exceptions that workers report: Celery rebuilds them, where that runs no code of others."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from celery import states
from celery.backends.base import Backend
from celery.exceptions import SecurityError, TaskRevokedError
from celery.utils.serialization import UnpickleableExceptionWrapper

from ..errors import RemoteTraceback, TaskFailed, TaskRevoked

__all__ = ["rebuild_exception"]


def rebuild_exception(
    backend: Backend, task_id: str, state: str, encoded: Any, traceback: Any
) -> BaseException:
    """Return the exception that a worker has reported, as one that can be raised safely.

    ``Backend.exception_to_python`` rebuilds it. Where the class is unknown here, does not take the
    arguments, or would stop the program, this is a ``TaskFailed`` instead.

    :param state: the state that was reported with it.
    :param encoded: the exception as the worker encoded it.
    :param traceback: the worker's traceback as text, if there is one.
    :raises SecurityError: the class is no exception.
    :raises Exception: no worker encodes exceptions in this way.
    """
    traceback = traceback if isinstance(traceback, str) else None
    if not encoded:
        return TaskFailed("unknown", traceback=traceback, task_id=task_id)
    rebuilt: BaseException | None
    if isinstance(encoded, BaseException):  # by pickle, which the app has turned on
        named, rebuilt = _naming(encoded), backend.exception_to_python(encoded)
    else:
        named = dict(encoded)
        rebuilt = backend.exception_to_python(named) if _is_loaded(named) else None
    if isinstance(rebuilt, UnpickleableExceptionWrapper):  # sent if pickle can't take the exception
        named, rebuilt = _wrapped(rebuilt), None
    if state == states.REVOKED or isinstance(rebuilt, TaskRevokedError):
        reason = rebuilt or _task_failed(task_id, named, traceback)
        return TaskRevoked(str(reason) or "revoked", task_id=task_id)
    if rebuilt is None or _is_control_flow(rebuilt) or not _is_named(rebuilt, named, encoded):
        rebuilt = _task_failed(task_id, named, traceback)
    if traceback and rebuilt.__cause__ is None:
        rebuilt.__cause__ = RemoteTraceback(traceback)
    return rebuilt


def _is_loaded(encoded: Mapping[str, Any]) -> bool:
    """Tell whether the exception class that a worker named is loaded. This runs no other code.

    Celery looks it up with ``getattr``, which would run the ``__getattr__`` of modules that import
    lazily, and of whatever a name with dots leads through.
    """
    name, module = encoded["exc_type"], encoded.get("exc_module")
    if not isinstance(name, str) or not isinstance(module, str | None):
        raise TypeError("exc_type and exc_module must be strings")
    found: Any = sys.modules.get(module) if module is not None else None
    for part in name.split("."):
        if issubclass(type(found), ModuleType):  # isinstance asks an object for its __class__
            members = object.__getattribute__(found, "__dict__")
        elif issubclass(type(found), type):
            members = type.__getattribute__(found, "__dict__")
        else:
            return False
        found = members.get(part)
        if found is not None and not issubclass(type(found), type):
            break
    is_class = issubclass(type(found), type)
    if found is not None and not (is_class and issubclass(found, BaseException)):
        raise SecurityError(f"Expected an exception class, got {module}.{name}")
    return found is not None


def _is_control_flow(error: BaseException) -> bool:
    """Tell whether raising the error would stop the caller's program, task or generator."""
    return not isinstance(error, Exception) or isinstance(
        error, (StopIteration, StopAsyncIteration)
    )


def _is_named(rebuilt: BaseException, named: Mapping[str, Any], encoded: Any) -> bool:
    """Tell whether Celery made an exception of the class that the worker named.

    If that class does not take the arguments, Celery makes a plain ``Exception``.
    """
    if isinstance(encoded, BaseException):
        return True
    cls = type(rebuilt)
    return (cls.__module__, cls.__qualname__) == (named["exc_module"], named["exc_type"])


def _naming(error: BaseException) -> dict[str, Any]:
    cls = type(error)
    return {
        "exc_type": cls.__qualname__,
        "exc_module": cls.__module__,
        "exc_message": error.args,
    }


def _wrapped(wrapper: UnpickleableExceptionWrapper) -> dict[str, Any]:
    return {
        "exc_type": wrapper.exc_cls_name,
        "exc_module": wrapper.exc_module,
        "exc_message": wrapper.exc_args,
    }


def _task_failed(task_id: str, named: Mapping[str, Any], traceback: str | None) -> TaskFailed:
    module, arguments = named.get("exc_module"), named.get("exc_message", ())
    return TaskFailed(
        str(named["exc_type"]),
        tuple(arguments) if isinstance(arguments, (list, tuple)) else (arguments,),
        exc_module=module if isinstance(module, str) else None,
        traceback=traceback,
        task_id=task_id,
    )
