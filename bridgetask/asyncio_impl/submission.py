"""Turns a recorded call into handles, and hands its messages to the session."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import Any, TypeAlias

from ..core.completion import Completion
from ..core.delivery import Delivery, JointDelivery
from ..errors import BridgetaskError, ClientClosed, InvalidOption, NotSent
from ..wire.canvas import is_group_result
from ..wire.message import OutgoingMessage
from ..wire.recorder import RecordedCall, Recorder
from ..wire.results import from_eager_result, is_eager_result
from .group import GroupResult
from .handle import Caller, Handle, OnCancel
from .members import Members
from .result import AsyncResult
from .session import Session

__all__ = ["Submission", "submission_of"]

#: Messages, and the ids of the tasks among them whose results come here.
_Batch: TypeAlias = tuple[list[tuple[OutgoingMessage, Completion]], list[str]]

#: How many members of a large group are called in one turn of the event loop.
_PER_TURN = 8
#: How many messages of a large group may be under way before more members are called.
_AHEAD = 1000


def submission_of(
    caller: Caller,
    session: Session,
    recorder: Recorder,
    call: RecordedCall,
    on_cancel: OnCancel,
) -> Submission:
    """Return the submission of a recorded call.

    :param recorder: the recorder that recorded it.
    :param on_cancel: what cancelling the last waiter does.
    :raises InvalidOption: the call wants a result, and the result backend is not supported.
    :raises Overloaded: too many messages wait to be sent already.
    """
    kind = Submission if call.rest is None else _GrowingSubmission
    return kind(caller, session, recorder, call, on_cancel)


class Submission:
    """Makes the handles of one recorded call, and sends its messages once it is started."""

    def __init__(
        self,
        caller: Caller,
        session: Session,
        recorder: Recorder,
        call: RecordedCall,
        on_cancel: OnCancel,
    ) -> None:
        session.backlog.check()
        self._caller = caller
        self._session = session
        self._recorder = recorder
        self._call = call
        self._on_cancel = on_cancel
        self._messages: dict[str, OutgoingMessage] = {}
        self._deliveries: dict[str, Delivery] = {}
        self._outgoing: list[tuple[OutgoingMessage, Completion]] = []
        self._to_receive: list[str] = []
        self._take(call.messages)
        #: The handle of the call: for a group a GroupResult, else an AsyncResult.
        self.handle: Any = self._handle(call.result)
        session.backlog.add(delivery for _, delivery in self._outgoing)

    def start(self) -> None:
        """Send the messages recorded so far. Runs on the session's event loop."""
        self._session.pending.expects_links = self._recorder.links_used
        self._flush()

    # The messages.

    def _take(self, messages: list[OutgoingMessage]) -> None:
        """Make deliveries of messages, for the handles that are made next."""
        self._messages.clear()
        self._deliveries.clear()
        for message in messages:
            task_id = message.task_id
            if task_id is None:
                self._outgoing.append((message, Completion()))
                continue
            name = message.properties["headers"].get("task", self._call.name)
            delivery = Delivery(f"{name}[{task_id}]", message.on_published)
            self._messages[task_id] = message
            self._deliveries[task_id] = delivery
            self._outgoing.append((message, delivery))

    def _flush(self) -> None:
        self._send(self._batch())

    def _send(self, batch: _Batch) -> None:
        outgoing, to_receive = batch
        self._session.expect(to_receive)
        for message, delivery in outgoing:
            self._session.send(message, delivery, receives=bool(to_receive))

    def _batch(self) -> _Batch:
        outgoing, self._outgoing = self._outgoing, []
        to_receive, self._to_receive = self._to_receive, []
        return outgoing, to_receive

    # The handles.

    def _handle(self, result: Any, carrier: Delivery | None = None) -> Handle:
        """Return the handle for a result of Celery's, with those of its parents and members.

        :param carrier: the message before this one. A worker sends the tasks that have no message
            here; so they fail with the message before them.
        """
        handle: Handle | None = None
        for each in _line(result):
            if is_group_result(each):
                members = self._members(each, carrier)
                carrier = members.delivery
                handle = GroupResult(self._caller, self._session, each.id, members, parent=handle)
            else:
                carrier = self._deliveries.get(each.id, carrier) or Delivery(self._title(each))
                handle = self._single(each, handle, carrier)
        assert handle is not None
        return handle

    def _members(self, result: Any, carrier: Delivery | None) -> Members:
        members = Members(JointDelivery(self._title(result)))
        members.extend([self._handle(member, carrier) for member in result.results])
        self._close(members, result)
        return members

    def _title(self, result: Any) -> str:
        return f"{self._call.name}[{result.id}]"

    def _close(self, members: Members, result: Any) -> None:
        """Take note that no members follow, unless they are called later."""
        members.close()

    def _single(self, result: Any, parent: Handle | None, delivery: Delivery) -> AsyncResult[Any]:
        call, backend = self._call, self._session.backend
        message = self._messages.get(result.id)
        ignored = self._recorder.ignores_result(call, result, message)
        no_result = backend.unavailable
        if not ignored and backend.refuses_calls:
            raise InvalidOption("result_backend", str(no_result))
        if call.reply_elsewhere and backend.capabilities.uses_reply_to:
            no_result = "its reply_to is another address than this client's"
        outcome = self._session.pending.begin(result.id)
        delivery.carry(outcome)
        outcome.stamps = message.stamps if message is not None else {}
        if is_eager_result(result):
            update = from_eager_result(result)
            ignored = not update.final  # the task raised Ignore or Reject
            delivery.complete()
            outcome.apply(update)
            outcome.complete()
        elif not ignored and no_result is None:
            self._to_receive.append(result.id)
        name = getattr(result, "task_name", None)
        if name is None and message is not None:
            name = message.properties["headers"].get("task", call.name)
        return AsyncResult(
            self._caller,
            self._session,
            outcome,
            name=name,
            parent=parent,
            ignored=ignored,
            delivery=delivery,
            no_result=no_result,
            on_cancel=self._on_cancel,
        )


def _line(result: Any) -> list[Any]:
    """Return a result of Celery's and its parents, the first one first."""
    line = [result]
    while line[-1].parent is not None:
        line.append(line[-1].parent)
    line.reverse()
    return line


class _GrowingSubmission(Submission):
    """The call of a large group: its members are called step by step."""

    def __init__(self, *args: Any) -> None:
        self._under_way: deque[Completion] = deque()
        self._stepping = threading.Lock()
        #: The thread that takes a step.
        self._stepper: int | None = None
        #: Whether there are no more steps. The members are closed a little later, on the loop.
        self._over = False
        #: The members of the group, which is the handle itself or a chord's header.
        self._growing: Members | None = None
        super().__init__(*args)
        #: The messages to send, step by step. Any thread may add to it.
        self._batches: deque[_Batch] = deque([self._batch()])

    def start(self) -> None:
        """Send the messages recorded so far, and begin to call the members that are left."""
        super().start()
        self._session.run(self._send_rest())

    def finish(self) -> None:
        """Call the members that are left at once, however long that takes.

        :raises Exception: whatever Celery raises for a member that can't be sent.
        """
        if self._stepper == threading.get_ident():
            return  # the code that makes the members asks for them: it gets those so far
        more = True
        while more:
            try:
                with self._stepping:
                    more = self._step()
            finally:
                self._session.loop.call_soon_threadsafe(self._flush)

    def _close(self, members: Members, result: Any) -> None:
        if result is self._call.growing:
            self._growing = members
            members.finish = self.finish
        else:
            super()._close(members, result)

    def _flush(self) -> None:
        while self._batches:
            batch = self._batches.popleft()
            self._under_way.extend(delivery for _, delivery in batch[0])
            self._send(batch)

    async def _send_rest(self) -> None:
        try:
            await self._wait_for_those_under_way()
            while self._step_unless_finishing():
                self._flush()
                await asyncio.sleep(0)
                await self._wait_for_those_under_way()
        except asyncio.CancelledError:
            self._close_group(ClientClosed("the client was closed before all members were sent"))
            raise
        except Exception:  # the handle has it
            self._flush()

    async def _wait_for_those_under_way(self) -> None:
        """Return once few enough messages are under way to call more members."""
        while len(self._under_way) > (0 if self._call.slow else _AHEAD):
            oldest = self._under_way.popleft()
            settled = Completion()
            oldest.then(settled.complete)
            await settled.wait()

    def _step_unless_finishing(self) -> bool:
        """Take a step, unless another thread is about to take all of them."""
        if not self._stepping.acquire(blocking=False):
            return False
        try:
            return self._step()
        finally:
            self._stepping.release()

    def _step(self) -> bool:
        """Call some more members of a large group; return whether there may be others."""
        members = self._growing
        assert members is not None
        if self._over:
            return False
        self._stepper = threading.get_ident()
        try:
            results, messages = self._recorder.record_more(self._call, _PER_TURN)
            self._take(messages)
            self._session.backlog.add(self._deliveries.values())
            members.extend([self._handle(result) for result in results])
        except Exception as error:
            self._close_group(error)
            raise
        finally:
            self._stepper = None
            self._batches.append(self._batch())
        if not results:
            self._close_group(None)
        return bool(results)

    def _close_group(self, error: BaseException | None) -> None:
        """Take note that no members follow. Done on the loop, since coroutines wait for it."""
        assert self._growing is not None
        self._over = True
        is_header = self._call.growing is not self._call.result
        if is_header and error is not None and not isinstance(error, BridgetaskError):
            # The call was accepted, so its result fails: that of the chord's body.
            failed = NotSent(f"a task of the header can't be sent: {error!r}")
            failed.__cause__ = error
            error = failed
        if self._session.runs_here:
            self._growing.close(error)
        else:
            self._session.loop.call_soon_threadsafe(self._growing.close, error)
