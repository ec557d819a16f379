"""What this package uses of the asyncio client beside its public methods. No other file does.

The asyncio client belongs to the loop that runs; here the caller names the loop, which may run in
another thread. Everything here is called in the reactor's thread and does no I/O, unless it says
otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from ..asyncio_impl.client import Client, calls_of
from ..asyncio_impl.events import close_soon
from ..asyncio_impl.handle import is_settled, value_of
from ..asyncio_impl.result import AsyncResult
from ..asyncio_impl.submission import Submission

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
    calls_of(client).sessions.check_open()


def close_unused(client: Client) -> None:
    """Close a client that has never been used here: there is nothing to disconnect."""
    calls_of(client).sessions.closed = True


def bind(client: Client, loop: asyncio.AbstractEventLoop) -> None:
    """Have the client belong to ``loop``, unless it belongs to a loop already.

    :raises ClientClosed: the client was closed.
    """
    calls_of(client).sessions.on(loop)


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
    calls = calls_of(client)
    return calls.send_task(calls.sessions.on(loop), name, args, kwargs, options)


def apply_async(
    client: Client,
    loop: asyncio.AbstractEventLoop,
    task: Any,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    options: dict[str, Any],
) -> Submission:
    """Record what :meth:`bridgetask.Client.apply_async` would send; see :func:`send_task`."""
    calls = calls_of(client)
    return calls.apply_async(calls.sessions.on(loop), task, args, kwargs, options)


def result(client: Client, loop: asyncio.AbstractEventLoop, task_id: str) -> AsyncResult[Any]:
    """Return the handle of a task by its id; see :meth:`bridgetask.Client.result`."""
    calls = calls_of(client)
    return calls.lookup(calls.sessions.on(loop)).by_id(task_id)
