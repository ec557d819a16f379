"""The calls of one client: the interface that its front ends and its handles use.

The front ends are :class:`bridgetask.Client`, which adds types and documentation, and
``twisted_compat``, which gets this from :func:`bridgetask.asyncio_impl.client.calls_of`:

.. code-block:: python

    calls = calls_of(client)
    session = calls.sessions.on(loop)  # from any thread
    submission = calls.send_task(session, "proj.add", (1, 2), None, {})  # raises for bad input
    loop.call_soon_threadsafe(submission.start)
    return submission.handle
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import BridgetaskError
from ..wire.message import StoreWrite
from .control import Control
from .control_io import perform
from .handle import Handle, OnCancel
from .lookup import Lookup
from .options import checked_on_cancel
from .session import Session
from .sessions import Sessions
from .submission import Submission, submission_of

__all__ = ["Calls"]

logger: logging.Logger = logging.getLogger("bridgetask")


class Calls:
    """Makes calls and handles. Every handle refers to it, as its ``Caller``.

    :param sessions: the sessions of the client.
    """

    def __init__(self, sessions: Sessions) -> None:
        #: The sessions and the codec of the client, and whether it was closed.
        self.sessions: Sessions = sessions
        #: Commands to workers, and questions.
        self.control: Control = Control(self._run_control)

    # For front ends:

    def send_task(
        self,
        session: Session,
        name: str,
        args: Sequence[Any] | None,
        kwargs: Mapping[str, Any] | None,
        options: dict[str, Any],
    ) -> Submission:
        """Record a call of a task by its name. Any thread may do that.

        Raises what :meth:`bridgetask.Client.send_task` raises.

        :param options: the options of the call. ``on_cancel`` is removed from them.
        :returns: the call. Start it on the session's event loop.
        """
        on_cancel = self._pop_on_cancel(options)
        recorder = self.sessions.codec.recorder
        recorded = recorder.send_task(name, args, kwargs, options)
        return submission_of(self, session, recorder, recorded, on_cancel)

    def apply_async(
        self,
        session: Session,
        task: Any,
        args: Sequence[Any] | None,
        kwargs: Mapping[str, Any] | None,
        options: dict[str, Any],
    ) -> Submission:
        """Record a call of a task or a signature; see :meth:`send_task`."""
        on_cancel = self._pop_on_cancel(options)
        recorder = self.sessions.codec.recorder
        recorded = recorder.apply_async(task, args, kwargs, options)
        return submission_of(self, session, recorder, recorded, on_cancel)

    def lookup(self, session: Session) -> Lookup:
        """Return what makes the handles of calls that were made elsewhere."""
        return Lookup(self, session, self.sessions.codec)

    # For handles: see Caller, which it satisfies.

    async def revoke(
        self, task_ids: str | Sequence[str], *, terminate: bool, signal: str | None
    ) -> object:
        """Send the command to revoke tasks."""
        return await self.control.revoke(task_ids, terminate=terminate, signal=signal)

    def revoke_in_background(self, session: Session, task_id: str, *, terminate: bool) -> None:
        """Revoke a task whose waiter was cancelled. Closing the session waits for that."""
        session.run(self._revoke(session, task_id, terminate))

    def handle_of_tree(self, session: Session, encoded: Any) -> Handle:
        """Return the handle of a task or a group, from what ``as_tuple`` gave for it."""
        return self.lookup(session).of_tree(encoded)

    def record_writes(self, write: Callable[[Any], object]) -> Sequence[StoreWrite]:
        """Return what ``write`` stores with the result backend that it is given."""
        return self.sessions.codec.recorder.record_writes(write)

    def _pop_on_cancel(self, options: dict[str, Any]) -> OnCancel:
        if "on_cancel" in options:
            return checked_on_cancel(options.pop("on_cancel"))
        return self.sessions.options.on_cancel

    async def _run_control(self, method: Callable[[Any], Any]) -> Any:
        """Run a function on Celery's control; the session of the running loop does its I/O."""
        session = self.sessions.running()
        return await perform(session, self.sessions.codec.mailbox.converse(method))

    async def _revoke(self, session: Session, task_id: str, terminate: bool) -> None:
        mailbox = self.sessions.codec.mailbox
        revoking = mailbox.converse(lambda control: control.revoke(task_id, terminate=terminate))
        try:
            await perform(session, revoking)
        except BridgetaskError as error:
            logger.warning("Could not revoke the abandoned task %s: %s", task_id, error)
