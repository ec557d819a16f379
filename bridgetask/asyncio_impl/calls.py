"""The calls of one client: what its front ends, and the handles, ask of it.

A front end is :class:`bridgetask.Client` itself, or a module on top of it such as
``twisted_compat``, which gets this by :func:`bridgetask.asyncio_impl.client.calls_of`:

.. code-block:: python

    calls = calls_of(client)
    calls.sessions.check_open()  # raises ClientClosed
    session = calls.sessions.on(loop)  # from any thread; made for this loop at the first call
    handle = calls.send_task(session, "proj.add", (1, 2), None, options, on_loop)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from operator import call
from typing import Any, TypeAlias

from ..errors import BridgetaskError
from ..wire.backend import StoreWrite
from ..wire.recorder import RecordedCall
from .control import Control
from .control_io import perform
from .handle import Handle, OnCancel
from .lookup import Lookup
from .options import checked_on_cancel
from .result import AsyncResult
from .session import Session
from .sessions import Sessions
from .submission import submission

__all__ = ["Calls"]

logger: logging.Logger = logging.getLogger("bridgetask")

#: Runs a function on the session's event loop, in the order of the calls.
OnLoop: TypeAlias = Callable[[Callable[[], None]], object]


class Calls:
    """Makes calls, and their handles. Handles hold it: it is their ``Caller``.

    :param sessions: the sessions of the client. Dropping all that holds them aborts the session.
    """

    def __init__(self, sessions: Sessions) -> None:
        self.sessions: Sessions = sessions
        #: Commands to workers, and questions. It refers back to this. So a client that is dropped
        #: goes only when garbage is collected, and what it was given in the last turn of the event
        #: loop is still sent when the loop ends.
        self.control: Control = Control(self._run_control)

    # For front ends. Recording runs in the thread of the caller, so that bad input raises there.

    def send_task(
        self,
        session: Session,
        name: str,
        args: Sequence[Any] | None,
        kwargs: Mapping[str, Any] | None,
        options: dict[str, Any],
        on_loop: OnLoop = call,
    ) -> AsyncResult[Any]:
        """Call a task by its name; see :meth:`bridgetask.Client.send_task`.

        :param options: those of the call. ``on_cancel`` is taken out of them.
        :param on_loop: runs a function on the session's event loop. Needed in other threads.
        """
        on_cancel = self._pop_on_cancel(options)
        recorded = self.sessions.wire.recorder.send_task(name, args, kwargs, options)
        handle: AsyncResult[Any] = self._submit(session, recorded, on_cancel, on_loop)
        return handle

    def apply_async(
        self,
        session: Session,
        task: Any,
        args: Sequence[Any] | None,
        kwargs: Mapping[str, Any] | None,
        options: dict[str, Any],
        on_loop: OnLoop = call,
    ) -> Any:
        """Call a task or a signature; see :meth:`bridgetask.Client.apply_async`.

        Takes what :meth:`send_task` takes.
        """
        on_cancel = self._pop_on_cancel(options)
        recorded = self.sessions.wire.recorder.apply_async(task, args, kwargs, options)
        return self._submit(session, recorded, on_cancel, on_loop)

    def lookup(self, session: Session) -> Lookup:
        """Return the maker of handles for calls that were made elsewhere."""
        return Lookup(self, session, self.sessions.wire)

    # For handles: see Caller, which it satisfies.

    async def revoke(
        self, task_ids: str | Sequence[str], *, terminate: bool, signal: str | None
    ) -> object:
        """Send the command to revoke tasks."""
        return await self.control.revoke(task_ids, terminate=terminate, signal=signal)

    def revoke_in_background(self, session: Session, task_id: str, *, terminate: bool) -> None:
        """Revoke a task for a caller that was cancelled. The session ends only after that."""
        session.run(self._revoke(session, task_id, terminate))

    def handle_of_tree(self, session: Session, encoded: Any) -> Handle:
        """Return the handle of a task or a group, from what ``as_tuple`` gave for it."""
        return self.lookup(session).of_tree(encoded)

    def record_writes(self, write: Callable[[Any], object]) -> Sequence[StoreWrite]:
        """Return what ``write`` stores with the result backend that it is given."""
        return self.sessions.wire.recorder.record_writes(write)

    def _submit(
        self, session: Session, recorded: RecordedCall, on_cancel: OnCancel, on_loop: OnLoop
    ) -> Any:
        submitted = submission(self, session, self.sessions.wire, recorded, on_cancel)
        on_loop(submitted.start)
        return submitted.handle

    def _pop_on_cancel(self, options: dict[str, Any]) -> OnCancel:
        if "on_cancel" in options:
            return checked_on_cancel(options.pop("on_cancel"))
        return self.sessions.options.on_cancel

    async def _run_control(self, method: Callable[[Any], Any]) -> Any:
        """Run a method of Celery's control, with its I/O done by the session that runs."""
        session = self.sessions.running()
        return await perform(session, self.sessions.wire.mailbox.converse(method))

    async def _revoke(self, session: Session, task_id: str, terminate: bool) -> None:
        mailbox = self.sessions.wire.mailbox
        revoking = mailbox.converse(lambda control: control.revoke(task_id, terminate=terminate))
        try:
            await perform(session, revoking)
        except BridgetaskError as error:
            logger.warning("Could not revoke the abandoned task %s: %s", task_id, error)
