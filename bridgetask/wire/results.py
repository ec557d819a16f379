"""What workers send back, decoded by kombu and Celery, without I/O and without surprises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from celery import states
from celery.backends.base import Backend
from celery.exceptions import TaskRevokedError
from celery.result import EagerResult
from celery.utils.serialization import UnpickleableExceptionWrapper
from kombu.message import Message
from kombu.serialization import loads, prepare_accept_content

from ..errors import RemoteTraceback, ResultUndecodable, TaskFailed, TaskRevoked

if TYPE_CHECKING:
    from celery import Celery

__all__ = [
    "FAILURE",
    "PENDING",
    "REVOKED",
    "STARTED",
    "SUCCESS",
    "ResultDecoder",
    "TaskUpdate",
    "from_eager_result",
    "is_eager_result",
    "load",
    "result_tree",
    "revoked_here",
]

PENDING, STARTED, SUCCESS, FAILURE, REVOKED = (
    states.PENDING,
    states.STARTED,
    states.SUCCESS,
    states.FAILURE,
    states.REVOKED,
)


@dataclass(frozen=True, slots=True)
class TaskUpdate:
    """A state that a worker reported."""

    task_id: str
    #: ``STARTED``, ``RETRY``, ``SUCCESS``, ``FAILURE``, ``REVOKED``, or one of the task's own.
    state: str
    #: The return value, the exception, or what the task passed to ``update_state(meta=...)``.
    result: Any = None
    #: The worker's traceback as text, or None.
    traceback: str | None = None
    #: The tasks that this one called, each as Celery's ``AsyncResult.as_tuple`` has it.
    children: tuple[Any, ...] = ()
    #: The id of the task that called this one, or None.
    parent_id: str | None = None
    #: All that the worker sent, ``result`` included as it was encoded.
    meta: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def final(self) -> bool:
        """Whether this is a result: nothing but a repetition follows it."""
        return self.state in states.READY_STATES

    @property
    def error(self) -> BaseException | None:
        """The exception to raise in place of a result, or None."""
        return self.result if self.state in states.PROPAGATE_STATES else None


def load(
    body: bytes,
    content_type: str | None,
    content_encoding: str | None,
    headers: Mapping[str, Any] | None,
    accept: set[str] | None,
) -> Any:
    """Decode a body as ``kombu.Message.decode`` does, compression included.

    :raises Exception: whatever kombu raises for content that is broken or not accepted.
    """
    given: dict[str, Any] = {"body": body, "headers": dict(headers or {})}
    message = Message(**given)
    if message.errors:  # kept by kombu from undoing the compression
        raise message.errors[0][1]
    decode: Any = loads
    return decode(message.body, content_type, content_encoding, accept=accept)


class ResultDecoder:
    """Decodes results as the app's own backend would.

    :param app: the Celery app, whose ``result_accept_content`` and serialisers apply.
    :param backend: Celery's backend that stores results, where one does.
    """

    def __init__(self, app: Celery, backend: Backend | None = None) -> None:
        conf = app.conf
        accept = conf.result_accept_content
        self._accept = prepare_accept_content(conf.accept_content if accept is None else accept)
        # Celery's base class, for its decoding alone: it has no connection to anything.
        self._backend = backend or Backend(app=app)

    def decode(
        self,
        body: bytes,
        content_type: str | None,
        content_encoding: str | None,
        headers: Mapping[str, Any] | None,
        correlation_id: str | None,
    ) -> TaskUpdate:
        """Decode one message.

        :raises ResultUndecodable: with the id of the task it is about, as far as that is known.
        """
        try:
            meta = load(body, content_type, content_encoding, headers, self._accept)
            return self._update(meta, meta["task_id"])
        except Exception as error:
            raise _undecodable(error, correlation_id) from error

    def decode_stored(self, payload: bytes, task_id: str) -> TaskUpdate:
        """Decode what the backend has stored for a task.

        :raises ResultUndecodable: it can't be read.
        """
        try:
            return self._update(self._backend.decode(payload), task_id)
        except Exception as error:
            raise _undecodable(error, task_id) from error

    def decode_group(self, payload: bytes, group_id: str) -> Any:
        """Decode what the backend has stored for a group, for :func:`result_tree`.

        :raises ResultUndecodable: it can't be read.
        """
        try:
            return self._backend.decode(payload)["result"]
        except Exception as error:
            raise _undecodable(error, group_id) from error

    def encode_result(self, result: Any, state: str) -> Any:
        """Prepare a value or an exception for serialising, as a worker's backend does."""
        return self._backend.encode_result(result, state)

    def _update(self, meta: Any, task_id: Any) -> TaskUpdate:
        state = meta["status"]
        if not isinstance(task_id, str) or not isinstance(state, str):
            raise TypeError("task_id and status must be strings")
        result, traceback = meta.get("result"), meta.get("traceback")
        if state in states.EXCEPTION_STATES:
            result = self._exception(task_id, state, result, traceback)
        children = meta.get("children")
        parent_id = meta.get("parent_id")
        return TaskUpdate(
            task_id=task_id,
            state=state,
            result=result,
            traceback=traceback if isinstance(traceback, str) else None,
            children=tuple(children) if isinstance(children, (list, tuple)) else (),
            parent_id=parent_id if isinstance(parent_id, str) else None,
            meta=meta,
        )

    def _exception(self, task_id: str, state: str, encoded: Any, traceback: Any) -> BaseException:
        """Rebuild an exception by ``Backend.exception_to_python``, and make it safe to raise."""
        rebuilt = self._backend.exception_to_python(encoded)
        if rebuilt is None:
            return TaskFailed("unknown", traceback=traceback, task_id=task_id)
        if state == states.REVOKED or isinstance(rebuilt, TaskRevokedError):
            return TaskRevoked(str(rebuilt) or "revoked", task_id=task_id)
        if _is_control_flow(rebuilt) or not _is_itself(rebuilt, encoded):
            rebuilt = _task_failed(task_id, rebuilt, encoded, traceback)
        if traceback and isinstance(traceback, str) and rebuilt.__cause__ is None:
            rebuilt.__cause__ = RemoteTraceback(traceback)
        return rebuilt


def _undecodable(error: Exception, task_id: str | None) -> ResultUndecodable:
    return ResultUndecodable(
        f"the result can't be read: {type(error).__name__}: {error}", task_id=task_id
    )


def _is_control_flow(error: BaseException) -> bool:
    """Tell whether raising the error would stop the caller's program, task or generator."""
    return not isinstance(error, Exception) or isinstance(
        error, (StopIteration, StopAsyncIteration)
    )


def _is_itself(rebuilt: BaseException, encoded: Any) -> bool:
    """Tell whether the class that a worker named was found, and took its arguments.

    Where it wasn't, Celery makes up a class of that name, or a plain ``Exception``.
    """
    if isinstance(rebuilt, UnpickleableExceptionWrapper):
        return False
    if not isinstance(encoded, Mapping) or encoded.get("exc_module") is None:
        return isinstance(encoded, BaseException)
    cls = type(rebuilt)
    return (cls.__module__, cls.__qualname__) == (encoded["exc_module"], encoded["exc_type"])


def _task_failed(
    task_id: str, rebuilt: BaseException, encoded: Any, traceback: str | None
) -> TaskFailed:
    if isinstance(rebuilt, UnpickleableExceptionWrapper):  # what a worker sends in its place
        return TaskFailed(
            str(rebuilt.exc_cls_name),
            tuple(rebuilt.exc_args or ()),
            exc_module=rebuilt.exc_module,
            traceback=traceback,
            task_id=task_id,
        )
    named = encoded if isinstance(encoded, Mapping) else {}
    arguments = named.get("exc_message", rebuilt.args)
    return TaskFailed(
        str(named.get("exc_type", type(rebuilt).__qualname__)),
        tuple(arguments) if isinstance(arguments, (list, tuple)) else (arguments,),
        exc_module=named.get("exc_module", type(rebuilt).__module__),
        traceback=traceback,
        task_id=task_id,
    )


def is_eager_result(result: object) -> bool:
    """Tell whether this is what ``task_always_eager`` gives: the task was run on the spot."""
    return isinstance(result, EagerResult)


def from_eager_result(result: Any) -> TaskUpdate:
    """Read Celery's ``EagerResult``."""
    return TaskUpdate(result.id, result.state, result.result, result.traceback)


def result_tree(encoded: Any) -> tuple[str, Any, list[Any] | None]:
    """Read what ``as_tuple`` of a result of Celery's left of it.

    :returns: the id of a task or group; its parent, encoded likewise, or None; and the members
        of a group, encoded likewise, or None for a task.
    :raises ResultUndecodable: it is something else.
    """
    try:
        (node_id, parent), members = encoded
    except (TypeError, ValueError):
        node_id = parent = members = None
    if not isinstance(node_id, str) or not isinstance(members, (list, tuple, type(None))):
        raise ResultUndecodable(f"a child can't be read: {encoded!r}")
    return node_id, parent, None if members is None else list(members)


def revoked_here(task_id: str) -> TaskUpdate:
    """Return the final update of a task that this client revoked."""
    return TaskUpdate(task_id, REVOKED, TaskRevoked("revoked", task_id=task_id))
