"""What this package uses of the asyncio client beside its public methods. No other file does.

The asyncio client belongs to the loop that runs; here the caller names the loop, which may run in
another thread. Everything here is called in the reactor's thread and does no I/O, unless it says
otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..asyncio_impl.client import Client
from ..asyncio_impl.events import Events
from ..asyncio_impl.lookup import handle_by_id
from ..asyncio_impl.result import AnyResult, AsyncResult
from ..asyncio_impl.submission import Submission, submission_of
from ..wire.recorder import RecordedCall

__all__ = [
    "apply_async",
    "bind",
    "check_open",
    "close_soon",
    "close_unused",
    "is_settled",
    "result",
    "send_task",
    "value_of",
]


def check_open(client: Client) -> None:
    """Raise ``ClientClosed`` if the client was closed."""
    client._check_open()


def close_unused(client: Client) -> None:
    """Close a client that has never been used here: there is nothing to disconnect."""
    client._closed = True


def bind(client: Client, loop: asyncio.AbstractEventLoop) -> None:
    """Have the client belong to ``loop``, unless it belongs to a loop already.

    :raises ClientClosed: the client was closed.
    """
    client._session_on(loop)


def send_task(
    client: Client,
    loop: asyncio.AbstractEventLoop,
    name: str,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    options: dict[str, Any],
) -> Submission:
    """Record what :meth:`bridgetask.Client.send_task` would send; raises what that raises.

    :returns: the call. It has the ``handle``; its ``start()`` sends the messages, and must be
        called on ``loop``.
    """
    return _recorded(client, loop, client._codec.recorder.send_task, (name, args, kwargs), options)


def apply_async(
    client: Client,
    loop: asyncio.AbstractEventLoop,
    task: Any,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    options: dict[str, Any],
) -> Submission:
    """Record what :meth:`bridgetask.Client.apply_async` would send; see :func:`send_task`."""
    return _recorded(
        client, loop, client._codec.recorder.apply_async, (task, args, kwargs), options
    )


def _recorded(
    client: Client,
    loop: asyncio.AbstractEventLoop,
    record: Callable[..., RecordedCall],
    args: tuple[Any, ...],
    options: dict[str, Any],
) -> Submission:
    session = client._session_on(loop)
    on_cancel = client._pop_on_cancel(options)
    return submission_of(client, session, record(*args, options), on_cancel)


def result(client: Client, loop: asyncio.AbstractEventLoop, task_id: str) -> AsyncResult[Any]:
    """Return the handle of a task by its id; see :meth:`bridgetask.Client.result`."""
    return handle_by_id(client, client._session_on(loop), task_id)


def is_settled(handle: AnyResult) -> bool:
    """Tell whether :func:`value_of` answers."""
    return handle._settled


def value_of(handle: AnyResult) -> Any:
    """Return the value of a handle that is settled, or raise its exception."""
    return handle._value()


def close_soon(events: Events) -> None:
    """End a capture of events, without waiting for that."""
    events._stream.close_soon()
