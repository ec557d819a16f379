"""Results and other states that workers send: kombu and Celery decode them, without I/O."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from reprlib import repr as short_repr
from types import TracebackType
from typing import TYPE_CHECKING, Any

from celery import states
from celery.backends import base as celery_backends
from celery.backends.base import Backend
from celery.result import EagerResult
from kombu.exceptions import ContentDisallowed
from kombu.serialization import prepare_accept_content, registry
from kombu.utils.json import loads as json_loads

from ..errors import ResultUndecodable, TaskRevoked
from . import stepwise_json
from .compression import DEFAULT_LIMIT, TooLarge, decompress
from .exceptions import rebuild_exception
from .message import Properties

if TYPE_CHECKING:
    from celery import Celery

__all__ = [
    "FAILURE",
    "PENDING",
    "READY_STATES",
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

#: The states in which a task has ended.
READY_STATES = states.READY_STATES

_JSON = "application/json"

#: Bodies of this many bytes and more are slow to decode. Shorter ones take a few milliseconds.
_SLOW = 128 * 1024

#: The first bytes of results that a backend has compressed, which it does from Celery 5.7 on.
_COMPRESSED: bytes = getattr(celery_backends, "COMPRESSED_PAYLOAD_MAGIC", b"\0celery-compressed\0")

#: How many characters of an error's text are kept.
_LONGEST_REASON = 300


@dataclass(frozen=True, slots=True)
class TaskUpdate:
    """A state that a worker reported."""

    #: The id of the task.
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
    #: Python's traceback of the exception, if the task ran in this process; else None.
    raised_at: TracebackType | None = field(default=None, repr=False, compare=False)

    @property
    def final(self) -> bool:
        """Whether the task has ended. Only a repetition of this can follow."""
        return self.state in READY_STATES

    @property
    def error(self) -> BaseException | None:
        """The exception to raise in place of a result, or None."""
        return self.result if self.state in states.PROPAGATE_STATES else None


def load(
    body: bytes,
    properties: Properties,
    accept: set[str] | None,
    *,
    limit: int = DEFAULT_LIMIT,
    in_steps: bool = False,
) -> Any:
    """Decompress and decode a body as ``kombu.Message.decode`` does.

    :param accept: the content types that are accepted; None accepts all that kombu has
        not disabled.
    :param limit: bytes that the body may have, before and after decompression.
    :param in_steps: whether other threads may run while JSON is decoded, which takes longer.
    :raises TooLarge: it has more.
    :raises Exception: whatever kombu raises for content that is broken or not accepted.
    """
    if len(body) > limit:
        raise TooLarge(limit)
    content_type, content_encoding, headers, _ = properties
    # kombu decodes content without a decoder by the codec that the sender names. Some of Python's
    # codecs decompress, without a limit. No worker sends such content.
    if content_type not in registry._decoders:
        raise ContentDisallowed(f"Refusing to deserialize content of type {content_type!r}")
    compression = (headers or {}).get("compression")
    if compression:
        body = decompress(body, compression, limit)
    decode: Any = (_json_in_steps() if in_steps else registry).loads
    return decode(body, content_type, content_encoding, accept=accept, _trusted_content=())


class ResultDecoder:
    """Decodes results as the app's own backend would. Safe to use from any thread.

    :param app: the Celery app, whose ``result_accept_content`` and serialisers apply.
    :param backend: Celery's backend, if it stores results; None if they come in messages.
    :param max_size: bytes that a result may have, before and after decompression.
    """

    def __init__(
        self, app: Celery, backend: Backend | None = None, *, max_size: int = DEFAULT_LIMIT
    ) -> None:
        conf = app.conf
        accept = conf.result_accept_content
        self._accept = prepare_accept_content(conf.accept_content if accept is None else accept)
        self._max_size = max_size
        # Celery's base class can decode, and connects to nothing.
        self._backend = backend or Backend(app=app)

    def decode(
        self,
        body: bytes,
        properties: Properties,
        in_steps: bool = False,
    ) -> TaskUpdate:
        """Decode one message.

        :param in_steps: whether other threads may run meanwhile, which takes longer.
        :raises ResultUndecodable: it can't be read. The error has the task's id, if that is known.
        """
        try:
            meta = load(body, properties, self._accept, limit=self._max_size, in_steps=in_steps)
            return self._update(meta, meta["task_id"])
        except Exception as error:
            raise _undecodable(error, properties.correlation_id) from error

    def decode_stored(self, payload: bytes, task_id: str, in_steps: bool = False) -> TaskUpdate:
        """Decode what the backend has stored for a task, as ``Backend.decode`` does.

        :param in_steps: whether other threads may run meanwhile, which takes longer.
        :raises ResultUndecodable: it can't be read.
        """
        try:
            return self._update(self._load_stored(payload, in_steps=in_steps), task_id)
        except Exception as error:
            raise _undecodable(error, task_id) from error

    def decode_group(self, payload: bytes, group_id: str) -> Any:
        """Decode what the backend has stored for a group, for :func:`result_tree`.

        :raises ResultUndecodable: it can't be read.
        """
        try:
            return self._load_stored(payload)["result"]
        except Exception as error:
            raise _undecodable(error, group_id) from error

    def _load_stored(self, payload: bytes, *, in_steps: bool = False) -> Any:
        backend = self._backend
        method, body = _stored(payload)
        return load(
            body,
            Properties(backend.content_type, backend.content_encoding, {"compression": method}),
            backend.accept,
            limit=self._max_size,
            in_steps=in_steps,
        )

    def is_slow(self, body: bytes, headers: Mapping[str, Any] | None = None) -> bool:
        """Tell whether it may take more than a few ms to decode a message or a stored result."""
        compressed = (headers or {}).get("compression") or body.startswith(_COMPRESSED)
        return len(body) >= _SLOW or bool(compressed)

    def encode_result(self, result: Any, state: str) -> Any:
        """Prepare a value or an exception for serialising, as a worker's backend does."""
        return self._backend.encode_result(result, state)

    def _update(self, meta: Any, task_id: Any) -> TaskUpdate:
        state = meta["status"]
        if not isinstance(task_id, str) or not isinstance(state, str):
            raise TypeError("task_id and status must be strings")
        result, traceback = meta.get("result"), meta.get("traceback")
        if state in states.EXCEPTION_STATES:
            result = rebuild_exception(self._backend, task_id, state, result, traceback)
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


def _json_in_steps() -> Any:
    """Return kombu's registry of serialisers, with a decoder of JSON that works in steps."""
    if registry._decoders.get(_JSON) is not json_loads:  # the program has registered another one
        return registry
    replaced: Any = copy(registry)
    in_steps = partial(json_loads, _loads=stepwise_json.loads)
    replaced._decoders = {**registry._decoders, _JSON: in_steps}
    return replaced


def _stored(payload: bytes) -> tuple[str | None, bytes]:
    """Return the compression of a stored result, and the rest; follows ``decompress_payload``."""
    if not payload.startswith(_COMPRESSED):
        return None, payload
    method, _, body = payload[len(_COMPRESSED) :].partition(b"\0")
    return method.decode(), body


def _undecodable(error: Exception, task_id: str | None) -> ResultUndecodable:
    return ResultUndecodable(
        f"the result can't be read: {type(error).__name__}: {_described(error)}", task_id=task_id
    )


def _described(error: Exception) -> str:
    """Return the text of an error, fit for a log: it may quote text that anybody has written."""
    try:
        text = str(error)[:_LONGEST_REASON]
    except Exception:
        text = ""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def is_eager_result(result: object) -> bool:
    """Tell whether this is a result of ``task_always_eager``: the task has run already."""
    return isinstance(result, EagerResult)


def from_eager_result(result: Any) -> TaskUpdate:
    """Read Celery's ``EagerResult``."""
    value = result.result
    raised_at = value.__traceback__ if isinstance(value, BaseException) else None
    return TaskUpdate(result.id, result.state, value, result.traceback, raised_at=raised_at)


def result_tree(encoded: Any) -> tuple[str, Any, list[Any] | None]:
    """Read a result of Celery's that ``as_tuple`` has encoded.

    :returns: the id of a task or group; its parent, encoded in the same way, or None; and the
        members of a group, encoded in the same way, or None for a task.
    :raises ResultUndecodable: it is something else.
    """
    try:
        (node_id, parent), members = encoded
    except (TypeError, ValueError):
        node_id = parent = members = None
    if not isinstance(node_id, str) or not isinstance(members, (list, tuple, type(None))):
        raise ResultUndecodable(f"a child can't be read: {short_repr(encoded)}")
    return node_id, parent, None if members is None else list(members)


def revoked_here(task_id: str) -> TaskUpdate:
    """Return the final update of a task that this client revoked."""
    return TaskUpdate(task_id, REVOKED, TaskRevoked("revoked", task_id=task_id))
